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
from parley.ui.chat_interface import FREE, SKIP
from parley.ui.render import Failure, question


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
    def reply(*_):
        yield Delta(text="one ")
        yield Delta(text="two")
        raise ServerFault("The server broke off.")

    async def read():
        values = ["parrot", *(None for _ in OPTIONS)][: len(OPTIONS)]
        taken = ChatFunction(reply).take_turn("hello", [], values, asking("one who reads"))
        return [(answer.text, error) async for answer, error in taken]

    assert asyncio.run(read())[-1] == ("one two", Failure("The server broke off."))


def asking(session):
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "scheme": "http"}
    return gr.Request(request=Request(scope | {"server": ("127.0.0.1", 80)}), session_hash=session)


def said(role, text):
    return {"role": role, "content": question(text).content, "metadata": None}


class Page:
    """What the page calls for one visitor, found by the events that it stands for in Gradio's own wiring."""

    def __init__(self, inside, session):
        self.chat, self.steps, self.request = inside.chat, inside.demo.fns, asking(session)

    def on(self, component, event):
        """The first step of what happens on this event."""
        return next(id for id, step in self.steps.items() if (component._id, event) in step.targets)

    def after(self, first, **wired):
        """The step that follows another one where that has succeeded, or failed."""
        return next(
            id
            for id, step in self.steps.items()
            if step.trigger_after == first and all(getattr(step, name) == value for name, value in wired.items())
        )

    @property
    def second(self):
        return self.after(self.on(self.chat.textbox, "submit"), trigger_only_on_success=True)

    async def send(self, text, shown):
        return await self.steps[self.on(self.chat.textbox, "submit")].fn(self.request, text, shown)

    async def clear(self):
        return await self.steps[self.on(self.chat.chatbot, "clear")].fn(self.request)

    async def answer(self, shown, model=None):
        """What the second step shows, one after the other."""
        steps = self.steps[self.second].fn(self.request, shown, "", model, *(None for _ in OPTIONS))
        async with aclosing(steps):
            async for messages, box, _ in steps:
                yield messages, box

    async def recover(self, shown):
        return await self.steps[self.after(self.second, trigger_only_on_failure=True)].fn(self.request, shown)


def test_a_turn_whose_reader_was_lost_does_not_end_the_next_one(inside):
    page, shown = Page(inside, "one that was lost"), [said("user", "hello")]

    async def lose():
        assert await page.send("hello", []) != SKIP
        lost = page.answer(shown)
        await anext(lost)
        await page.recover(shown)
        assert await page.send("hello", []) != SKIP
        await lost.aclose()
        assert await page.send("and then?", []) == SKIP, "the next turn is under way"

    asyncio.run(lose())


def test_the_second_step_of_a_refused_question_takes_no_other_turn(inside):
    """Who presses Enter while an answer grows is refused; what they send when it has ended would be overwritten."""
    page, grown = Page(inside, "one in a hurry"), [said("user", "one"), said("assistant", "so")]
    ended = [*grown, said("assistant", "far")]

    async def hurry():
        assert [each async for each in page.answer(grown)] == [SKIP]
        assert await page.send("two", ended) != SKIP
        assert [each async for each in page.answer(grown)] == [SKIP]
        *_, (whole, _) = [each async for each in page.answer([*ended, said("user", "two")], "parrot")]
        assert len(whole) > len(ended) + 1, "its own second step answers it"

    asyncio.run(hurry())


def test_a_talk_that_is_cleared_before_the_second_step_frees_the_page(inside):
    page = Page(inside, "one who cleared")

    async def clear():
        assert await page.send("hello", []) != SKIP
        await page.clear()
        assert [each async for each in page.answer([])] == [([], FREE)]
        assert await page.send("hello again", []) != SKIP

    asyncio.run(clear())


def test_a_question_does_not_overwrite_the_end_of_an_answer_that_is_still_on_its_way(inside):
    page, shown = Page(inside, "one who is quick"), [said("user", "hello")]

    async def quick():
        assert await page.send("hello", []) != SKIP
        *_, (whole, _) = [each async for each in page.answer(shown, "parrot")]
        seen = [*shown, said("assistant", "hel")]
        assert await page.send("and then?", seen) == SKIP
        heard = [*seen, {**said("assistant", ""), "metadata": {"title": "finished"}}]
        assert len(heard) == len(whole)
        asked, _ = await page.send("and then?", heard)
        assert len(asked) == len(heard) + 1

    asyncio.run(quick())
