"""The chat on the page: what is shown is the only state, and nothing that fails ever locks it."""

import enum
import time
from collections.abc import AsyncGenerator, Mapping
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
MAX_STEP_SECONDS = 100.0  # seconds after which that step comes no more
REFUSED = "The server was not reached, or could not take this turn. Nothing is lost: press Retry."


class Phase(enum.Enum):
    """Where a turn stands.

    | phase | what has happened | on the second step | on Stop | on Clear |
    | --- | --- | --- | --- | --- |
    | ASKED | the question is shown, and its second step is on its way | ANSWERING | STOPPED_EARLY | CLEARED_EARLY |
    | STOPPED_EARLY | Stop came before the second step | STOPPED | | CLEARED_EARLY |
    | CLEARED_EARLY | Clear came before the second step | the turn ends, and nothing is shown | | |
    | ANSWERING | the second step runs an engine | refused | STOPPED | CLEARED |
    | STOPPED | Stop came during the answer, which ends with what there is | refused | | CLEARED |
    | CLEARED | Clear came during the answer, of which nothing more is shown | refused | | |
    """

    ASKED = enum.auto()
    STOPPED_EARLY = enum.auto()
    CLEARED_EARLY = enum.auto()
    ANSWERING = enum.auto()
    STOPPED = enum.auto()
    CLEARED = enum.auto()


ON_SECOND_STEP = {Phase.ASKED: Phase.ANSWERING, Phase.STOPPED_EARLY: Phase.STOPPED}
ON_STOP = {Phase.ASKED: Phase.STOPPED_EARLY, Phase.ANSWERING: Phase.STOPPED}
ON_CLEAR = {
    Phase.ASKED: Phase.CLEARED_EARLY,
    Phase.STOPPED_EARLY: Phase.CLEARED_EARLY,
    Phase.ANSWERING: Phase.CLEARED,
    Phase.STOPPED: Phase.CLEARED,
}
EARLY = (Phase.ASKED, Phase.STOPPED_EARLY, Phase.CLEARED_EARLY)


@dataclass
class TurnState:
    """A session's turn, from its question on. Read and changed on the event loop only."""

    started_at: float  # time.monotonic()
    num_messages: int  # how many messages were shown then: the second step brings as many
    phase: Phase = Phase.ASKED

    def advance(self, transitions: Mapping[Phase, Phase]) -> None:
        """Goes to the next phase; stays where the table has none for this one."""
        self.phase = transitions.get(self.phase, self.phase)


@dataclass(frozen=True)
class SentEnd:
    """What the page was sent at the end of a turn, to tell whether the page has it already."""

    num_asked: int  # messages up to the question
    num_shown: int  # those, and what stands below the question
    sent_at: float  # time.monotonic()


class ResilientChatInterface(gr.ChatInterface):
    """A ChatInterface that answers in two steps, after each of send, retry, edit, example and continue.

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
        self._ends: dict[str | None, SentEnd] = {}
        super().__init__(
            with_named_parameters(self.chat_function.chat),
            additional_inputs=list[str | Component](additional_inputs),
            concurrency_limit=None,
            cache_examples=False,  # on a Space Gradio would answer them at start
            **rest,
        )

    def _setup_events(self) -> None:
        shown, box = self.chatbot, self.textbox
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        at_once: dict[str, Any] = private | {"queue": False}
        first_steps = [
            box.submit(self._send, [box, shown], [shown, box], **at_once),
            shown.retry(self._retry, shown, [shown, box], **at_once),
            shown.edit(self._edit, shown, [shown, box], **at_once),
            shown.example_select(self._example, shown, [shown, box], **at_once),
            shown.option_select(self._continue, shown, [shown, box], **at_once),
        ]
        inputs = [shown, *self.additional_inputs]
        answers = [
            first_step.success(
                self._answer, inputs, [shown, box], concurrency_limit=None, trigger_mode="multiple", **private
            )
            for first_step in first_steps
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
            if turn.phase not in EARLY
            or now - turn.started_at < (STALE_AFTER_SECONDS if session == mine else MAX_STEP_SECONDS)
        }
        self._ends = {session: end for session, end in self._ends.items() if now - end.sent_at < STALE_AFTER_SECONDS}
        if mine in self._turns:
            return SKIP
        self._turns[mine] = TurnState(now, len(shown))
        return shown, BUSY | box

    async def _send(self, request: gr.Request, text: str, shown: Shown) -> tuple[Any, Any]:
        if not text.strip() or self._end_is_on_its_way(request, shown):
            return SKIP
        return self._begin(request, [*trim_folded(shown), question(text)], value="")

    def _end_is_on_its_way(self, request: gr.Request, shown: Shown) -> bool:
        """Whether the page does not have the end of the last answer yet: a question would overwrite it."""
        end = self._ends.get(request.session_hash)
        if end is None or time.monotonic() - end.sent_at >= STALE_AFTER_SECONDS:
            return False
        return len(shown) < end.num_shown and len(_split_at_last_question(shown)[0]) == end.num_asked

    async def _retry(self, request: gr.Request, shown: Shown) -> tuple[Any, Any]:
        talk, _ = _split_at_last_question(shown)
        return self._begin(request, talk) if talk else SKIP

    async def _edit(self, request: gr.Request, shown: Shown, edit: gr.EditData) -> tuple[Any, Any]:
        if not edit.value.strip():
            return SKIP
        return self._begin(request, [*shown[: _index(edit)], question(edit.value)])

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
            turn.advance(ON_STOP)
            self.chat_function.stop(request)

    async def _clear(self, request: gr.Request) -> Any:
        if turn := self._turns.get(request.session_hash):
            turn.advance(ON_CLEAR)
            self.chat_function.stop(request)
        return gr.skip() if turn else FREE

    async def _answer(self, request: gr.Request, shown: Shown, *values: Any) -> AsyncGenerator[tuple[Any, Any]]:
        turn = self._turns.get(request.session_hash)
        if turn and turn.phase is Phase.CLEARED_EARLY:
            del self._turns[request.session_hash]
            yield [], FREE
            return
        # A first step that was refused has a second one too.
        if not turn or turn.phase not in EARLY or turn.num_messages != len(shown):
            yield SKIP
            return
        talk, rest = _split_at_last_question(shown)
        kept, before = partial_answer(rest)
        asked, history = _text(talk[-1]), talk[:-1]
        if kept:
            asked, history = "", [*talk, {"role": "assistant", "content": rejoined(before.text, before.thought)}]
        turn.advance(ON_SECOND_STEP)
        *settings, _ = values  # the last one is the API's `messages`
        answer, error, url = Answer(), "", address(request)
        try:
            yield [*talk, *render(answer, before=before)], gr.skip()
            if turn.phase is not Phase.ANSWERING:  # stopped or cleared meanwhile
                answer = Answer(finish="stopped")
            else:
                taken = self.chat_function.take_turn(asked, history, settings, request)
                async with aclosing(taken):
                    async for answer, error in taken:
                        if turn.phase is not Phase.CLEARED:
                            yield [*talk, *render(answer, error, url, before)], gr.skip()
            whole = [] if turn.phase is Phase.CLEARED else [*talk, *render(answer, error, url, before)]
            self._ends[request.session_hash] = SentEnd(len(talk), len(whole), time.monotonic())
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


def _index(edit: gr.EditData) -> int:
    """Which message was edited: a number, because the chatbot shows messages and not pairs."""
    return edit.index if isinstance(edit.index, int) else edit.index[0]


def _text(message: Any) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")
