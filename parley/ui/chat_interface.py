"""The chat on the page: what is shown is the only state, and nothing that fails ever locks it."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from parley.events import Answer
from parley.generation.reasoning_parser import rejoined
from parley.ui.chat_function import ChatFunction, Reply, with_named_parameters
from parley.ui.client_snippets import address
from parley.ui.render import partial_answer, question, render, trim_folded

Shown = list[Any]  # the messages of the chatbot, as Gradio hands them over

FREE = gr.update(submit_btn=True, stop_btn=False)
BUSY = gr.update(submit_btn=False, stop_btn=True)
SKIP = gr.skip(), gr.skip()
STALE_AFTER_SECONDS = 5.0  # seconds after which a question whose second step never came no longer hinders the next one
LONGEST = 100.0  # seconds after which that step comes no more
REFUSED = "The server was not reached, or could not take this turn. Nothing is lost: press Retry."


@dataclass
class TurnState:
    """Where a session's turn stands, from its question on. Read and changed on the event loop only."""

    asked: float  # time.monotonic()
    length: int  # how many messages were shown then: its second step brings as many
    answering: bool = False
    stopped: bool = False
    cleared: bool = False  # what is on its way to the page then brings the old talk back; the end takes it away


@dataclass(frozen=True)
class End:
    """What the page is told at the end of a turn, so that one knows whether it has heard it."""

    asked: int  # messages of the talk up to the question
    shown: int  # those, and what stands below the question
    at: float  # time.monotonic()


class ResilientChatInterface(gr.ChatInterface):
    """A ChatInterface whose roads to an answer (send, retry, edit, example, continue) are two steps each.

    The first shows the question, at once and outside the queue, or takes away what stands under an answer that has
    only begun; the second answers the last question that is shown, or goes on with its answer.
    Whatever fails, the question stands in the chat or is still in the box, which is never disabled. Stock Gradio
    disables the box for an answer, for good when an event fails, and keeps a second history that can disagree with
    what is shown.
    """

    def __init__(
        self, reply: Reply, *, additional_inputs: list[Component], max_running: int | None, **rest: Any
    ) -> None:
        self.chat_function = ChatFunction(reply, max_running)
        self._turns: dict[str | None, TurnState] = {}  # by session
        self._ends: dict[str | None, End] = {}
        super().__init__(
            with_named_parameters(self.chat_function.chat),
            additional_inputs=additional_inputs,
            concurrency_limit=None,
            cache_examples=False,  # on a Space Gradio would answer them at start
            **rest,
        )

    def _setup_events(self) -> None:
        shown, box = self.chatbot, self.textbox
        private = {"show_progress": "hidden", "api_visibility": "private"}
        at_once = private | {"queue": False}
        roads = [
            box.submit(self._send, [box, shown], [shown, box], **at_once),
            shown.retry(self._retry, shown, [shown, box], **at_once),
            shown.edit(self._edit, shown, [shown, box], **at_once),
            shown.example_select(self._example, shown, [shown, box], **at_once),
            shown.option_select(self._continue, shown, [shown, box], **at_once),
        ]
        inputs = [shown, *self.additional_inputs]
        answers = [
            road.success(
                self._answer, inputs, [shown, box], concurrency_limit=None, trigger_mode="multiple", **private
            )
            for road in roads
        ]
        for answer in answers:
            answer.failure(self._recover, shown, [shown, box], **at_once)
        box.stop(self._stop, None, None, **at_once)
        shown.undo(self._undo, shown, [shown, box], **at_once)
        shown.clear(self._clear, None, box, **at_once)
        self._add_api()

    def _add_api(self) -> None:
        self.fake_api_btn.click(
            self._api_wrapper(self.fn, self._stream_fn),
            [self.textbox, self.chatbot_state, *self.additional_inputs],
            [self.api_response, self.chatbot_state],
            api_name=self.api_name,
            concurrency_limit=None,
            postprocess=False,
        )

    def _begin(self, request: gr.Request, shown: Shown, **box: Any) -> tuple[Any, Any]:
        """Shows the talk up to what is to be answered, and a turn begins; nothing where the session has one."""
        now, mine = time.monotonic(), request.session_hash
        self._turns = {
            session: turn
            for session, turn in self._turns.items()
            if turn.answering or now - turn.asked < (STALE_AFTER_SECONDS if session == mine else LONGEST)
        }
        self._ends = {session: end for session, end in self._ends.items() if now - end.at < STALE_AFTER_SECONDS}
        if mine in self._turns:
            return SKIP
        self._turns[mine] = TurnState(now, len(shown))
        return shown, BUSY | box

    async def _send(self, request: gr.Request, text: str, shown: Shown) -> tuple[Any, Any]:
        end = self._ends.get(request.session_hash)
        unheard = (
            end and len(shown) < end.shown and len(_split_at_last_question(shown)[0]) == end.asked
        )  # it would be overwritten
        if not text.strip() or (unheard and time.monotonic() - end.at < STALE_AFTER_SECONDS):
            return SKIP
        return self._begin(request, [*trim_folded(shown), question(text)], value="")

    async def _retry(self, request: gr.Request, shown: Shown) -> tuple[Any, Any]:
        talk, _ = _split_at_last_question(shown)
        return self._begin(request, talk) if talk else SKIP

    async def _edit(self, request: gr.Request, shown: Shown, edit: gr.EditData) -> tuple[Any, Any]:
        if not edit.value.strip():
            return SKIP
        return self._begin(request, [*shown[: edit.index], question(edit.value)])

    async def _example(self, request: gr.Request, shown: Shown, example: gr.SelectData) -> tuple[Any, Any]:
        return self._begin(request, [*shown, question(example.value["text"])])  # what is in the box stays there

    async def _continue(self, request: gr.Request, shown: Shown) -> tuple[Any, Any]:
        talk, rest = _split_at_last_question(shown)
        answer, _ = partial_answer(rest)
        return self._begin(request, [*talk, *answer]) if talk and answer else SKIP

    async def _undo(self, request: gr.Request, shown: Shown) -> tuple[Any, Any]:
        talk, _ = _split_at_last_question(shown)
        if not talk or request.session_hash in self._turns:
            return SKIP
        return talk[:-1], gr.update(value=_text(talk[-1]))

    async def _stop(self, request: gr.Request) -> None:
        if turn := self._turns.get(request.session_hash):
            turn.stopped = True
            self.chat_function.stop(request)

    async def _clear(self, request: gr.Request) -> Any:
        if turn := self._turns.get(request.session_hash):
            turn.cleared = True
            await self._stop(request)
        return gr.skip() if turn else FREE

    async def _answer(self, request: gr.Request, shown: Shown, *values: Any) -> AsyncGenerator[tuple[Any, Any]]:
        turn = self._turns.get(request.session_hash)
        if turn and turn.cleared and not turn.answering:
            del self._turns[request.session_hash]
            yield [], FREE
            return
        if not turn or turn.answering or turn.length != len(shown):  # a first step that was refused has a second too
            yield SKIP
            return
        talk, rest = _split_at_last_question(shown)
        kept, before = partial_answer(rest)
        asked, history = _text(talk[-1]), talk[:-1]
        if kept:
            asked, history = "", [*talk, {"role": "assistant", "content": rejoined(before.text, before.thought)}]
        turn.answering = True
        *settings, _ = values  # the last one is the API's `messages`
        answer, error, url = Answer(), "", address(request)
        try:
            yield [*talk, *render(answer, before=before)], gr.skip()
            if turn.stopped:
                answer = Answer(finish="stopped")
            else:
                taken = self.chat_function.take_turn(asked, history, settings, request)
                async with aclosing(taken):
                    async for answer, error in taken:
                        if not turn.cleared:
                            yield [*talk, *render(answer, error, url, before)], gr.skip()
            whole = [] if turn.cleared else [*talk, *render(answer, error, url, before)]
            self._ends[request.session_hash] = End(len(talk), len(whole), time.monotonic())
            yield whole, FREE
        finally:
            if self._turns.get(request.session_hash) is turn:  # not the next one, where this one's reader was lost
                del self._turns[request.session_hash]

    async def _recover(self, request: gr.Request, shown: Shown) -> tuple[Shown, Any]:
        self._turns.pop(request.session_hash, None)
        self.chat_function.stop(request)  # it runs on where the server has not noticed that the line is dead
        talk, rest = _split_at_last_question(shown)  # empty: cleared while it answered
        return [*talk, *(render(Answer(), REFUSED, before=partial_answer(rest)[1]) if talk else [])], FREE


def _split_at_last_question(shown: Shown) -> tuple[Shown, Shown]:
    """The talk up to its last question, that included, and what stands below it."""
    end = next((i + 1 for i in reversed(range(len(shown))) if shown[i]["role"] == "user"), 0)
    return shown[:end], shown[end:]


def _text(message: Any) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")
