"""The turns of one page as the server is told of them, in whatever order the network brings it."""

import asyncio
from contextlib import aclosing

import gradio as gr
import pytest
from starlette.requests import Request

from parley.settings import OPTIONS
from parley.ui import turn_state
from parley.ui.turn_state import Turns
from tests.conftest import Clock


class Page:
    """What the page calls for one visitor, found by the names that it has in Gradio's own wiring."""

    def __init__(self, inside, session):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "scheme": "http"}
        self.request = gr.Request(request=Request(scope | {"server": ("127.0.0.1", 80)}), session_hash=session)
        self.chat = inside.chat

    async def answer(self, asked, text="hello", model="budgie"):
        """What is shown, one after the other."""
        shown = [{"role": "user", "content": [{"type": "text", "text": text}], "metadata": None}] if text else []
        values = [model, *(None for _ in OPTIONS)][: len(OPTIONS)]
        async with aclosing(self.chat._answer(self.request, asked, shown, *values)) as events:
            async for event in events:
                yield event

    async def stop(self, number):
        await self.chat._stop(self.request, number)


def titles(event):
    return [(each["metadata"] or {}).get("title", "") for each in event["shown"]]


def test_the_answer_comes_without_what_stands_above_it_and_the_last_event_is_short(inside):
    async def ask():
        return [each async for each in Page(inside, "one who asks").answer({"turn": 3})]

    *_, whole, last = asyncio.run(ask())
    assert [each["role"] for each in whole["shown"]] == ["assistant", "assistant"]
    assert whole["stored"]["finish"] == "end" and whole["stored"]["ids"]
    assert last == {"turn": 3, "over": True}


def test_a_stop_that_is_faster_than_its_question_stops_it(inside):
    page = Page(inside, "one who stops")

    async def stop():
        await page.stop(1)
        _, stopped, _ = [each async for each in page.answer({"turn": 1})]
        assert [title.endswith("stopped") for title in titles(stopped)] == [True]
        *_, whole, _ = [each async for each in page.answer({"turn": 2})]
        assert whole["stored"]["finish"] == "end"

    asyncio.run(stop())


def test_the_next_turn_ends_one_whose_reader_was_lost_and_a_late_stop_ends_no_other(inside):
    page = Page(inside, "one that was lost")

    async def lose():
        lost = page.answer({"turn": 1}, model=inside.endless)
        while not (await anext(lost))["stored"]:
            pass
        going_on = page.answer({"turn": 2})
        await anext(going_on)
        await page.stop(1)
        assert [each async for each in page.answer({"turn": 1})] == [{"turn": 1, "over": True}]
        assert [each async for each in page.answer({"turn": 2})] == [{"turn": 2, "over": True}], "it is under way"
        *_, whole, _ = [each async for each in going_on]
        assert whole["stored"]["finish"] == "end"
        *_, broken_off, _ = [each async for each in lost]
        assert broken_off["stored"]["finish"] == "stopped"

    asyncio.run(lose())


@pytest.mark.parametrize(
    "asked", [None, [], {"turn": "1"}, {"turn": 1, "stored": 7}, {"turn": 1, "stored": {"ids": "x"}}]
)
def test_what_no_page_of_ours_sends_does_no_harm(inside, asked):
    async def ask(text):
        return [each async for each in Page(inside, "one who fuzzes").answer(asked, text)]

    assert asyncio.run(ask(""))[-1]["over"] and asyncio.run(ask("hello"))[-1]["over"]


def test_a_turn_that_never_comes_is_forgotten(monkeypatch):
    clock, turns = Clock(), Turns()
    monkeypatch.setattr(turn_state, "time", clock)
    turns.stop("one", 1)
    clock.ahead = turn_state.MAX_STEP_SECONDS + 1
    turns.begin("another", 1)
    assert list(turns._newest) == ["another"]
