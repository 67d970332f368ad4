"""A turn that is read from the event loop: a cancellation always ends it, and nothing that came is lost."""

import asyncio
import threading
from contextlib import aclosing

import gradio as gr
import pytest
from starlette.requests import Request

from parley.engines.base import Delta
from parley.errors import ServerFault
from parley.settings import OPTIONS
from parley.ui.bubbles import question
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


def test_a_turn_whose_reader_was_lost_does_not_end_the_next_one(inside):
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "scheme": "http"}
    request = gr.Request(request=Request(scope | {"server": ("127.0.0.1", 80)}), session_hash="one that was lost")
    shown = [{"role": "user", "content": question("hello").content, "metadata": None}]

    async def lose():
        lost = inside.chat._answer(request, shown, *(None for _ in OPTIONS), None)
        await anext(lost)
        await inside.chat._recover(request, shown)
        assert inside.chat._may_ask(request)
        await lost.aclose()
        assert inside.chat._turns.pop(request.session_hash, None)

    asyncio.run(lose())
