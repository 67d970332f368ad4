"""A turn that is read from the event loop: a cancellation always ends it, and nothing that came is lost."""

import asyncio
import threading
from contextlib import aclosing

import gradio as gr
import pytest
from starlette.requests import Request

from parley.errors import ServerFault
from parley.events import Delta
from parley.serving.turn_thread import TurnThread
from parley.settings import OPTIONS
from parley.ui.chat_function import ChatFunction


@pytest.mark.parametrize("rounds", range(8))
def test_a_cancellation_that_comes_with_a_piece_is_not_lost(rounds):
    """A cancelled call whose cancellation is lost goes on to the answer's end, and its caller waits."""
    go_on, handed_over, stopped = (threading.Event() for _ in range(3))

    def source():
        yield Delta(text="one")
        go_on.wait(90)
        yield Delta(text="two")
        handed_over.set()
        stopped.wait(90)

    async def read(running, texts):
        async with aclosing(running.deltas(source)) as deltas:
            async for delta in deltas:
                texts.append(delta.text)

    async def turn():
        texts: list[str] = []
        running = TurnThread(lambda: stopped.set() or True)
        reading = asyncio.create_task(read(running, texts))
        while texts != ["one"]:
            await asyncio.sleep(0)
        go_on.set()
        assert handed_over.wait(90)  # in this loop's own thread: by its next round the piece is in the queue
        for _ in range(rounds):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, 90)

    asyncio.run(turn())
    assert stopped.is_set()


def test_what_came_in_the_last_moment_before_a_fault_is_shown():
    def reply(*_, **__):
        yield Delta(text="one ")
        yield Delta(text="two")
        raise ServerFault("The server broke off.")

    async def read():
        values = ["parrot", *(None for _ in OPTIONS)][: len(OPTIONS)]
        taken = ChatFunction(reply).take_turn("hello", [], values, asking("one who reads"))
        return [(answer.text, error and error.as_data()) async for answer, error in taken]

    text, error = asyncio.run(read())[-1]
    assert (text, error["message"], error["code"]) == ("one two", "The server broke off.", "server_fault")


def asking(session):
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "scheme": "http"}
    return gr.Request(request=Request(scope | {"server": ("127.0.0.1", 80)}), session_hash=session)
