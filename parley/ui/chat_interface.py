"""The chat on the page: the server's part of a turn (see turns.js for the page's), and a failure never locks it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

import gradio as gr
from gradio.components import Component

from parley.api.sessions import AS_THEY_ARE
from parley.api.turns.failures import program_error
from parley.api.turns.turn_runner import Reply
from parley.errors import BadConversation, ChatError
from parley.events import Answer
from parley.generation.reasoning_parser import rejoined
from parley.models import registry
from parley.serving.turn import cpu_model
from parley.settings import OPTIONS
from parley.ui import stored_answer
from parley.ui.chat_function import ChatFunction, with_named_parameters
from parley.ui.client_snippets import address
from parley.ui.controls import choose_model
from parley.ui.render import CONTINUE, GO_ON, Failure, partial_answer, render
from parley.ui.stored_answer import StoredAnswer
from parley.ui.turn_state import Turns

Shown = list[Any]  # the messages shown in the chatbot, as Gradio passes them

TEXTS = {  # of turns.js
    "refused": "The server was not reached, or could not take this turn. Nothing is lost: press Retry.",
    "goOn": GO_ON,
    "proceed": CONTINUE,
}
MAX_END_SECONDS = 10.0  # for which a lost turn is waited for
DIFFERS = "The words before the break came out otherwise this time."


@dataclass(frozen=True)
class Task:
    """What a turn has to do."""

    message: str  # empty where an answer goes on, which is the last message of `history`
    history: Shown
    settings: Sequence[Any]  # in the order of `OPTIONS`
    generated: Sequence[int]  # see `turn.reply`
    given: Sequence[int]  # as above
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
    """A ChatInterface whose turns begin in the browser, after each of send, retry, edit, example, continue and resume.

    turns.js shows the question or, for continue, removes the messages below the partial answer. Then `_answer` answers
    the last question, or continues its answer, and sends the messages of the answer alone. Resume makes an answer
    again that broke off, with its seed, and goes on to show it where it is longer than what was shown.
    After any failure the question is in the chat, and the textbox is never disabled. Stock Gradio disables the textbox
    during an answer, permanently if an event fails, and keeps a second history that can differ from the messages
    shown.
    """

    def __init__(
        self, reply: Reply, *, additional_inputs: list[Component], hidden: Mapping[str, gr.Button], **rest: Any
    ) -> None:
        """`hidden` has the buttons that the page's scripts press, by their names."""
        self.chat_function = ChatFunction(reply)
        self.hidden = hidden
        self._turns = Turns()
        super().__init__(
            with_named_parameters(self.chat_function.chat),
            additional_inputs=list[str | Component](additional_inputs),
            concurrency_limit=None,
            cache_examples=False,  # by default Gradio answers the examples at the start of a Space
            **rest,
        )

    def _setup_events(self) -> None:
        shown, box, hidden = self.chatbot, self.textbox, self.hidden
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        at_once: dict[str, Any] = private | {"queue": False}
        box.submit(None, [box, shown], None, js="turns.send", **at_once)
        shown.retry(None, shown, None, js="turns.retry", **at_once)
        shown.edit(None, shown, shown, js="turns.edit", **at_once)
        shown.example_select(None, shown, None, js="turns.example", **at_once)
        shown.option_select(None, shown, None, js="turns.option", **at_once)
        hidden["resume-answer"].click(None, shown, None, js="turns.resume", **at_once)
        controls = self.additional_inputs[:-1]  # the last one is the API's `messages`
        hidden["choose-other-model"].click(_choose_other_model, controls, controls, **at_once).success(
            None, shown, None, js="turns.goOn", **at_once
        )
        begun = hidden["begin-turn"].click(None, None, [shown, box], js="turns.begun", **at_once)
        asked = gr.JSON(visible=False)  # what turns.js says of the turn
        answer = begun.success(
            self._answer,
            [asked, shown, *controls],
            shown,
            js="turns.asked",
            concurrency_limit=None,
            trigger_mode="multiple",
            **AS_THEY_ARE,
            **private,
        )
        answer.success(None, None, box, js="turns.ended", **at_once)
        lost = answer.failure(self._end_lost, asked, None, js="turns.number", **at_once)
        for after in (lost.success, lost.failure):
            after(None, None, [shown, box], js="turns.failed", **at_once)
        box.stop(self._stop, asked, None, js="turns.number", **at_once)
        shown.undo(None, shown, [shown, box], js="turns.undo", **at_once)
        shown.clear(None, None, None, js="turns.clear", **at_once)
        self._add_api()

    async def _stream_fn(self, message: Any, history: list[Any], *args: Any) -> AsyncGenerator[tuple]:
        """Gradio's, but a question belongs to the conversation of a program only once its answer has begun.

        Else one that is refused would stay, and the next answer would be to both. The conversation is set once, and
        then changed in place, because Gradio describes a state anew each time that it is set.
        """
        if not isinstance(message, str | None):
            raise program_error(BadConversation("The message must be text. Put a conversation into `messages`."))
        kept: list[Any] | None = None  # the conversation that was set
        async with aclosing(super()._stream_fn(message or "", history, *args)) as steps:
            async for text, conversation in steps:
                if text and kept is not None:
                    kept[:] = conversation
                    yield text, gr.skip()
                else:
                    kept = conversation if text else None
                    yield text, kept or history

    def _add_api(self) -> None:
        self.fake_api_btn.click(
            self._api_wrapper(self.fn, self._stream_fn),
            [self.textbox, self.chatbot_state, *self.additional_inputs],
            [self.api_response, self.chatbot_state],
            api_name=self.api_name,
            concurrency_limit=None,
            **AS_THEY_ARE,
        )

    async def _stop(self, request: gr.Request, number: Any) -> None:
        if isinstance(number, int) and self._turns.stop(request.session_hash, number):
            self.chat_function.stop(request)

    async def _end_lost(self, request: gr.Request, number: Any) -> None:
        """Ends a turn whose connection is lost. The server may not have noticed it, and its stream would take what
        comes of the next turn.
        """
        await self._stop(request, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._turns.until_over(request.session_hash), MAX_END_SECONDS)

    async def _answer(
        self, request: gr.Request, asked: Any, shown: Shown, *settings: Any
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yields the number of the turn, the messages of the answer so far, and what the browser keeps of it. The last
        one says only that it is over, because Gradio sends that one whole again.
        """
        number, resumes, stored = _asked(asked)
        turn = self._turns.begin(request.session_hash, number)
        task = _task(shown or [], stored, _visible(settings), resumes)
        if turn is None or task is None:
            yield {"turn": number, "over": True}
            return
        self.chat_function.stop(request)  # an earlier turn, whose connection is lost, and that the server still runs
        answer, url = Answer(), address(request)

        def event(
            answer: Answer, failure: Failure | None = None, known: dict[str, Any] | None = None
        ) -> dict[str, Any]:
            messages = render(task.longest(answer), failure, url, task.before)
            return {"turn": number, "shown": [asdict(each) for each in messages], "stored": known}

        try:
            yield event(answer)
            if turn.stopped:
                yield event(Answer(finish="stopped"))
            else:
                asked = task.message, task.history, task.settings, request, task.generated
                taken = self.chat_function.take_turn(*asked, given=task.given)
                known = None
                async with aclosing(taken):
                    async for answer, error in taken:
                        if answer.finish or not known:
                            known = stored_answer.write(answer, task.before)
                        yield event(answer, _failure(error) if error else None, known)
            yield {"turn": number, "over": True}
        finally:
            self._turns.end(request.session_hash, turn)


async def _choose_other_model(*values: Any) -> list[Any]:
    """Updates of the controls, to go on with a model that needs no GPU."""
    other = cpu_model()
    return await asyncio.to_thread(choose_model, other.name, *values) if other else [gr.skip()] * len(OPTIONS)


def _failure(error: ChatError) -> Failure:
    """What the page shows of it: the sentence, and a model that needs no GPU where the visitor gets none."""
    return Failure(str(error), cpu_model() if error.code == "quota" and error.valid else None)


def _asked(asked: Any) -> tuple[int, bool, StoredAnswer]:
    """What turns.js says of a turn: its number, whether it makes an answer again that broke off, a stored answer."""
    values = asked if isinstance(asked, dict) else {}
    number = values.get("turn")
    return (
        number if isinstance(number, int) else 0,
        bool(values.get("resume")),
        stored_answer.read(values.get("stored")),
    )


def _visible(values: Sequence[Any]) -> Sequence[Any]:
    """The values of the controls; None, the model's own value, for those that the page hides with this model.

    They may still have those of the model before, where a question follows its choice at once. An empty box for a
    number is None too.
    """
    given = dict(zip(OPTIONS, values, strict=True))
    given |= {name: None for name, value in given.items() if value == "" and OPTIONS[name].kind is not str}
    row = registry.models().get(str(given["model"]))
    taken = row.capabilities.settings if row else OPTIONS
    return [value if name in taken or name == "model" else None for name, value in given.items()]


def _task(shown: Shown, stored: StoredAnswer, settings: Sequence[Any], resumes: bool) -> Task | None:
    """The task of a turn that begins; None where nothing was asked.

    Where a server answers, an answer that broke off is not made again, but goes on with what there is.
    """
    conversation, rest = _split_at_last_question(shown)
    if not conversation:
        return None
    before, already, generated, given = partial_answer(rest), Answer(), stored.generated, list[int]()
    row = registry.models().get(str(stored.settings.get("model")))
    if resumes and not (row and row.engine == "remote"):
        cut = len(stored.before.text), len(stored.before.thought)
        already = Answer(text=before.text[cut[0] :], thought=before.thought[cut[1] :])
        before, generated, given = stored.before, list(stored.prompt_ids), list(stored.given)
        settings = [stored.settings.get(name) for name in OPTIONS] if stored.settings else settings
    if before.text or before.thought:
        partial_message = {"role": "assistant", "content": rejoined(before.text, before.thought)}
        message, history = "", [*conversation, partial_message]
    else:
        message, history = _text(conversation[-1]), conversation[:-1]
    return Task(message, history, settings, generated, given, before, already)


def _split_at_last_question(shown: Shown) -> tuple[Shown, Shown]:
    """The messages up to and including the last question, and the messages below it."""
    end = next((i + 1 for i in reversed(range(len(shown))) if shown[i]["role"] == "user"), 0)
    return shown[:end], shown[end:]


def _text(message: Any) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")
