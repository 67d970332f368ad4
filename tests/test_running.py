"""A turn that is read from the event loop: a cancellation always ends it."""

import asyncio
import threading
from contextlib import aclosing

import pytest

from parley.engines.base import Delta
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
