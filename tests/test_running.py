"""A turn that is read from the event loop: a cancellation always ends it, and nothing that came is lost."""

import asyncio
import threading
from contextlib import aclosing

import pytest

from parley.engines.base import Delta
from parley.errors import ServerFault
from parley.ui.chat import _answers
from parley.ui.running import Running


@pytest.mark.parametrize("rounds", range(8))
def test_a_cancellation_that_comes_with_a_piece_is_not_lost(rounds):
    """A cancelled call whose cancellation is lost goes on to the answer's end, and its caller waits."""
    stopped = threading.Event()

    def source():
        yield Delta(text="one")
        stopped.wait(20)

    async def read(running, texts):
        async with aclosing(running.deltas(source)) as deltas:
            async for delta in deltas:
                texts.append(delta.text)

    async def turn():
        texts: list[str] = []
        running = Running(lambda: stopped.set() or True)
        reading = asyncio.create_task(read(running, texts))
        while texts != ["one"]:
            await asyncio.sleep(0)
        running._hand_over(Delta(text="two"))  # by the loop's next round it is in the queue
        for _ in range(rounds):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, 5)

    asyncio.run(turn())
    assert stopped.is_set()


def test_what_came_in_the_last_moment_before_a_fault_is_shown():
    async def deltas():
        yield Delta(text="one ")
        yield Delta(text="two")
        raise ServerFault("The server broke off.")

    async def read(texts):
        async for answer in _answers(deltas()):
            texts.append(answer.text)

    texts: list[str] = []
    with pytest.raises(ServerFault):
        asyncio.run(read(texts))
    assert texts[-1] == "one two"
