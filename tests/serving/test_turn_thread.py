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
from parley.ui.chat_function import _answers
from parley.ui.chat_interface import FREE, SKIP, Phase
from parley.ui.render import question


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
        running = TurnThread(lambda: stopped.set() or True)
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


def asking(session):
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "scheme": "http"}
    return gr.Request(request=Request(scope | {"server": ("127.0.0.1", 80)}), session_hash=session)


def said(role, text):
    return {"role": role, "content": question(text).content, "metadata": None}


def second_step(chat, request, shown):
    return chat._answer(request, shown, *(None for _ in OPTIONS), None)


def test_a_turn_whose_reader_was_lost_does_not_end_the_next_one(inside):
    request, shown = asking("one that was lost"), [said("user", "hello")]

    async def lose():
        assert inside.chat._begin(request, shown)[0] is shown
        lost = second_step(inside.chat, request, shown)
        await anext(lost)
        await inside.chat._recover(request, shown)
        assert inside.chat._begin(request, shown)[0] is shown
        await lost.aclose()
        assert inside.chat._turns.pop(request.session_hash, None)

    asyncio.run(lose())


def test_the_second_step_of_what_was_refused_takes_nobodys_turn(inside):
    """Who presses Enter while an answer grows is refused; what he sends when it has ended would be overwritten."""
    request, grown = asking("one in a hurry"), [said("user", "one"), said("assistant", "so")]

    async def hurry():
        assert [each async for each in second_step(inside.chat, request, grown)] == [SKIP]
        asked = [*grown, said("assistant", "far"), said("user", "two")]
        assert inside.chat._begin(request, asked)[0] is asked
        assert [each async for each in second_step(inside.chat, request, grown)] == [SKIP]
        assert inside.chat._turns.pop(request.session_hash).phase is Phase.ASKED

    asyncio.run(hurry())


def test_a_talk_that_is_cleared_before_the_second_step_frees_the_page(inside):
    request, shown = asking("one who cleared"), [said("user", "hello")]

    async def clear():
        assert inside.chat._begin(request, shown)[0] is shown
        await inside.chat._clear(request)
        assert [each async for each in second_step(inside.chat, request, [])] == [([], FREE)]
        assert request.session_hash not in inside.chat._turns

    asyncio.run(clear())


def test_a_question_does_not_overwrite_the_end_of_an_answer_that_is_still_on_its_way(inside):
    request, shown = asking("one who is quick"), [said("user", "hello")]
    parrot = [inside.models[1], *(None for _ in OPTIONS)]

    async def quick():
        assert inside.chat._begin(request, shown)[0] is shown
        *_, (whole, _) = [each async for each in inside.chat._answer(request, shown, *parrot)]
        seen = [*shown, said("assistant", "hel")]
        assert await inside.chat._send(request, "and then?", seen) == SKIP
        heard = [*seen, {**said("assistant", ""), "metadata": {"title": "finished"}}]
        assert len(heard) == len(whole)
        asked, _ = await inside.chat._send(request, "and then?", heard)
        assert len(asked) == len(heard) + 1
        del inside.chat._turns[request.session_hash]

    asyncio.run(quick())
