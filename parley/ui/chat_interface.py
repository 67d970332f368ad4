"""The chat on the page. The messages shown are its only state, and a failure never locks it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.components import Component

from parley.events import Answer, Usage
from parley.generation.reasoning_parser import rejoined
from parley.models import registry
from parley.serving.turn import cpu_model
from parley.settings import OPTIONS
from parley.ui import stored_answer
from parley.ui.chat_function import ChatFunction, Reply, with_named_parameters
from parley.ui.client_snippets import address
from parley.ui.controls import choose_model
from parley.ui.render import CONTINUE, Failure, edited_answer, partial_answer, question, render, trim_folded
from parley.ui.stored_answer import StoredAnswer
from parley.ui.turn_state import EARLY, ON_CLEAR, ON_SECOND_STEP, ON_STOP, Phase, TurnState

Shown = list[Any]  # the messages shown in the chatbot, as Gradio passes them

FREE = gr.update(submit_btn=True, stop_btn=False)
BUSY = gr.update(submit_btn=False, stop_btn=True)
SKIP = gr.skip(), gr.skip()
UNCHANGED = [gr.skip()] * len(OPTIONS)  # the controls of the settings
STALE_AFTER_SECONDS = 5.0  # after this time a question without its second step no longer blocks the session's next one
MAX_STEP_SECONDS = 100.0  # after this time the second step is not expected any more
DIFFERS = "The words before the break came out otherwise this time."
REFUSED = "The server was not reached, or could not take this turn. Nothing is lost: press Retry."


@dataclass(frozen=True)
class SentEnd:
    """What the server sent at the end of a turn, to find out whether the page has received it."""

    num_asked: int  # messages up to the question
    num_shown: int  # all messages
    sent_at: float  # time.monotonic()


@dataclass(frozen=True)
class Task:
    """What the second step of a turn has to do."""

    conversation: Shown  # up to the question
    message: str  # empty where an answer goes on, which is the last message of `history`
    history: Shown
    settings: Sequence[Any]  # in the order of `OPTIONS`
    generated: Sequence[int]  # see `turn.reply`
    before: Answer  # the partial answer that goes on
    shown: Answer  # what was shown of an answer that is made again, without `before`

    def longest(self, answer: Answer) -> Answer:
        """The answer, or what was shown of it before it broke off where that is longer."""
        shorter = len(answer.text) + len(answer.thought) < len(self.shown.text) + len(self.shown.thought)
        if shorter and answer.finish in (None, "stopped"):
            return replace(answer, text=self.shown.text, thought=self.shown.thought)
        if answer.finish and not (
            answer.text.startswith(self.shown.text) and answer.thought.startswith(self.shown.thought)
        ):
            return replace(answer, notices=(*answer.notices, DIFFERS))
        return answer


class ResilientChatInterface(gr.ChatInterface):
    """A ChatInterface that answers in two steps, after each of send, retry, edit, example, continue and resume.

    The first step runs at once, outside the queue. It shows the question or, for continue, removes the messages below
    the partial answer. The second step answers the last question shown, or continues its answer. Resume makes an
    answer again that broke off, with its seed, and goes on to show it where it is longer than what was shown.
    After any failure the question is in the chat or still in the textbox, which is never disabled. Stock Gradio
    disables the textbox during an answer, permanently if an event fails, and keeps a second history that can differ
    from the messages shown.
    """

    def __init__(
        self, reply: Reply, *, additional_inputs: list[Component], stored: gr.Textbox, resume: gr.Button, **rest: Any
    ) -> None:
        """`stored` takes what the browser keeps of the last answer; `resume` is pressed where it broke off."""
        self.chat_function = ChatFunction(reply)
        self._turns: dict[str | None, TurnState] = {}  # by session
        self._ends: dict[str | None, SentEnd] = {}
        self.stored = stored
        self.resume = resume
        super().__init__(
            with_named_parameters(self.chat_function.chat),
            additional_inputs=list[str | Component](additional_inputs),
            concurrency_limit=None,
            cache_examples=False,  # by default Gradio answers the examples at the start of a Space
            **rest,
        )

    def _setup_events(self) -> None:
        shown, box = self.chatbot, self.textbox
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        at_once: dict[str, Any] = private | {"queue": False}
        controls = self.additional_inputs[:-1]
        first_steps = [
            box.submit(self._send, [box, shown], [shown, box], **at_once),
            shown.retry(self._retry, shown, [shown, box], **at_once),
            shown.edit(self._edit, shown, [shown, box], **at_once),
            shown.example_select(self._example, shown, [shown, box], **at_once),
            shown.option_select(self._continue, [shown, *controls], [shown, box, *controls], **at_once),
            self.resume.click(self._resume, [shown, self.stored], [shown, box], **at_once),
        ]
        inputs = [shown, self.stored, *self.additional_inputs]
        answers = [
            first_step.success(
                self._answer,
                inputs,
                [shown, box, self.stored],
                concurrency_limit=None,
                trigger_mode="multiple",
                **private,
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

    def _begin(
        self,
        request: gr.Request,
        shown: Shown,
        earlier: Usage | None = None,
        again: StoredAnswer | None = None,
        **box: Any,
    ) -> tuple[Any, Any]:
        """Begins a turn and shows its messages; does nothing if the session already has a turn."""
        now, own_session = time.monotonic(), request.session_hash
        self._turns = {
            session: turn
            for session, turn in self._turns.items()
            if turn.phase not in EARLY
            or now - turn.started_at < (STALE_AFTER_SECONDS if session == own_session else MAX_STEP_SECONDS)
        }
        self._ends = {session: end for session, end in self._ends.items() if now - end.sent_at < STALE_AFTER_SECONDS}
        if own_session in self._turns:
            return SKIP
        self._turns[own_session] = TurnState(now, len(shown), earlier, again)
        return shown, BUSY | box

    async def _send(self, request: gr.Request, text: str, shown: Shown) -> tuple[Any, Any]:
        if not text.strip() or self._is_end_in_transit(request, shown):
            return SKIP
        return self._begin(request, [*trim_folded(shown), question(text)], value="")

    def _is_end_in_transit(self, request: gr.Request, shown: Shown) -> bool:
        """Whether the page has not received the end of the last answer yet. A new question would overwrite it."""
        end = self._ends.get(request.session_hash)
        if end is None or time.monotonic() - end.sent_at >= STALE_AFTER_SECONDS:
            return False
        return len(shown) < end.num_shown and len(_split_at_last_question(shown)[0]) == end.num_asked

    async def forget_end(self, request: gr.Request) -> None:
        """Called when the page shows another conversation: no end of an answer is on its way to it."""
        self._ends.pop(request.session_hash, None)

    async def _retry(self, request: gr.Request, shown: Shown) -> tuple[Any, Any]:
        conversation, _ = _split_at_last_question(shown)
        return self._begin(request, conversation) if conversation else SKIP

    async def _edit(self, request: gr.Request, shown: Shown, edit: gr.EditData) -> tuple[Any, Any]:
        index, text = _index(edit), edit.value
        if not text.strip() or (shown[index].get("metadata") or {}).get("title"):
            return SKIP
        if shown[index]["role"] == "assistant":  # no turn: the visitor chooses whether it goes on
            return ([*shown[:index], edited_answer(text)], gr.skip()) if self._is_free(request) else SKIP
        return self._begin(request, [*shown[:index], question(text)])

    async def _example(self, request: gr.Request, shown: Shown, example: gr.SelectData) -> tuple[Any, Any]:
        return self._begin(request, [*shown, question(example.value["text"])])  # the textbox keeps its text

    async def _continue(
        self, request: gr.Request, option: gr.SelectData, shown: Shown, *values: Any
    ) -> tuple[Any, ...]:
        """Continues the answer with the same model, or answers or continues with the one that the option names."""
        conversation, rest = _split_at_last_question(shown)
        answer, before = partial_answer(rest)
        other = cpu_model() if option.value != CONTINUE else None
        if not conversation or not (answer or other):
            return *SKIP, *UNCHANGED
        controls = await asyncio.to_thread(choose_model, other.name, *values) if other else UNCHANGED
        return *self._begin(request, [*conversation, *answer], before.usage), *controls

    async def _resume(self, request: gr.Request, shown: Shown, stored: str) -> tuple[Any, Any]:
        """Makes the answer again that broke off; where a server answers, it goes on with what there is."""
        conversation, rest = _split_at_last_question(shown)
        if not conversation:
            return SKIP
        answer, before = partial_answer(rest)
        again = stored_answer.read(stored)
        row = registry.models().get(str(again.settings.get("model")))
        if row and row.engine == "remote":
            return self._begin(request, [*conversation, *answer], before.usage)
        return self._begin(request, [*conversation, *answer], again=again)

    def _is_free(self, request: gr.Request) -> bool:
        return request.session_hash not in self._turns

    async def _undo(self, request: gr.Request, shown: Shown) -> tuple[Any, Any]:
        conversation, _ = _split_at_last_question(shown)
        if not conversation or not self._is_free(request):
            return SKIP
        return conversation[:-1], gr.update(value=_text(conversation[-1]))

    async def _stop(self, request: gr.Request) -> None:
        if turn := self._turns.get(request.session_hash):
            turn.advance(ON_STOP)
            self.chat_function.stop(request)

    async def _clear(self, request: gr.Request) -> Any:
        if turn := self._turns.get(request.session_hash):
            turn.advance(ON_CLEAR)
            self.chat_function.stop(request)
        return gr.skip() if turn else FREE

    async def _answer(
        self, request: gr.Request, shown: Shown, stored: str, *values: Any
    ) -> AsyncGenerator[tuple[Any, Any, Any]]:
        turn = self._turns.get(request.session_hash)
        if turn and turn.phase is Phase.CLEARED_EARLY:
            del self._turns[request.session_hash]
            yield [], FREE, ""
            return
        # The second step also comes after a first step that was refused.
        if not turn or turn.phase not in EARLY or turn.num_messages != len(shown):
            yield *SKIP, gr.skip()
            return
        *settings, _ = values  # the last one is the API's `messages`
        task = _task(shown, stored_answer.read(stored), settings, turn)
        turn.advance(ON_SECOND_STEP)
        answer, failure, url = Answer(), None, address(request)

        def messages(answer: Answer, failure: Failure | None = None) -> Shown:
            return [*task.conversation, *render(task.longest(answer), failure, url, task.before)]

        try:
            yield messages(answer), gr.skip(), ""
            if turn.phase is not Phase.ANSWERING:  # stopped or cleared meanwhile
                answer = Answer(finish="stopped")
            else:
                taken = self.chat_function.take_turn(
                    task.message, task.history, task.settings, request, task.generated
                )
                known = ""
                async with aclosing(taken):
                    async for answer, failure in taken:
                        if turn.phase is not Phase.CLEARED:
                            before, known = known, stored_answer.write(answer, task.before)
                            yield messages(answer, failure), gr.skip(), gr.skip() if known == before else known
            final = [] if turn.phase is Phase.CLEARED else messages(answer, failure)
            self._ends[request.session_hash] = SentEnd(len(task.conversation), len(final), time.monotonic())
            yield final, FREE, gr.skip() if final else ""
        finally:
            if self._turns.get(request.session_hash) is turn:  # the session may have its next turn already
                del self._turns[request.session_hash]

    async def _recover(self, request: gr.Request, shown: Shown) -> tuple[Shown, Any]:
        self._turns.pop(request.session_hash, None)
        self.chat_function.stop(request)  # the turn still runs if the server has not noticed the broken connection
        conversation, rest = _split_at_last_question(shown)  # empty if the chat was cleared during the answer
        before = partial_answer(rest)[1]
        messages = render(Answer(), Failure(REFUSED), before=before) if conversation else []
        return [*conversation, *messages], FREE


def _task(shown: Shown, stored: StoredAnswer, settings: Sequence[Any], turn: TurnState) -> Task:
    """The task of a turn that has just begun. `stored`: the last answer of the conversation, as the browser has it."""
    conversation, rest = _split_at_last_question(shown)
    _, before = partial_answer(rest)
    before, already = replace(before, usage=turn.earlier), Answer()
    generated: Sequence[int] = stored.generated
    if again := turn.again:
        cut = len(again.before.text), len(again.before.thought)
        already = Answer(text=before.text[cut[0] :], thought=before.thought[cut[1] :])
        before, generated = again.before, again.prompt_ids
        settings = [again.settings.get(name) for name in OPTIONS] if again.settings else settings
    if before.text or before.thought:
        partial_message = {"role": "assistant", "content": rejoined(before.text, before.thought)}
        message, history = "", [*conversation, partial_message]
    else:
        message, history = _text(conversation[-1]), conversation[:-1]
    return Task(conversation, message, history, settings, generated, before, already)


def _split_at_last_question(shown: Shown) -> tuple[Shown, Shown]:
    """The messages up to and including the last question, and the messages below it."""
    end = next((i + 1 for i in reversed(range(len(shown))) if shown[i]["role"] == "user"), 0)
    return shown[:end], shown[end:]


def _index(edit: gr.EditData) -> int:
    """The index of the edited message. Gradio's type also allows a pair of numbers."""
    return edit.index if isinstance(edit.index, int) else edit.index[0]


def _text(message: Any) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")
