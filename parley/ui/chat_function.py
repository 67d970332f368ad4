"""The chat function, behind the page and the API: checks the settings, runs the turn, and yields the answer so far."""

import asyncio
import functools
import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr

from parley.errors import ChatError
from parley.events import Answer, Delta
from parley.generation.reasoning_parser import rejoined
from parley.messages import Message, build_messages, build_plain_text
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.serving import turn, turn_settings
from parley.serving.turn_thread import TurnThread
from parley.serving.waiting_line import LINES, WaitingLine
from parley.settings import OPTIONS, Settings
from parley.ui import zerogpu_errors
from parley.ui.gpu_queue import leave_gpu_queue
from parley.ui.render import Failure

log = logging.getLogger("parley")

# run, messages, settings, session, the tokens of the conversation where the session is new; `given`, see `turn.reply`
Reply = Callable[..., Iterator[Delta]]
WAITING = "Waiting for a free place: you are number {place} in the line"
BROKEN = "Something went wrong inside Parley, and it has been logged. Press Retry, or try another model."


class ChatFunction:
    """Answers the visitors of one page with `reply`. Keeps the running turns by session, so that Stop finds a turn."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._running: dict[str, TurnThread] = {}  # by session
        self._gpu_line: list[TurnThread] = []  # turns that requested a GPU, in this order

    def stop(self, request: gr.Request) -> None:
        """Stops this visitor's turn. The chat then ends as usual, with the answer so far."""
        if running := self._running.get(request.session_hash or ""):
            running.stop()

    async def take_turn(
        self,
        message: str,
        history: Sequence[Any],
        values: Sequence[Any],
        request: gr.Request,
        generated: Sequence[int] = (),
        *,
        given: Sequence[int] = (),
    ) -> AsyncGenerator[tuple[Answer, Failure | None]]:
        """Yields the answer so far, and last what went wrong, if anything did. For the tokens see `turn.reply`."""
        run_id, session, answer = uuid.uuid4().hex, request.session_hash or "", Answer()
        begun = Answer()  # the words with which the visitor begins the answer
        running = self._running[session] = TurnThread(lambda: turn.stop(run_id), leave_gpu_queue)
        try:
            settings = await asyncio.to_thread(turn_settings.read, dict(zip(OPTIONS, values, strict=True)))
            messages, begun = await asyncio.to_thread(build_prompt, message, history, settings)
            reply = functools.partial(self._reply, run_id, messages, settings, session, generated, given=given)
            deltas = self._deltas(running, reply, settings)
            async with aclosing(_answers(deltas)) as answers:
                async for made in answers:
                    answer = replace(made, text=begun.text + made.text, thought=begun.thought + made.thought)
                    yield answer, None
        except ChatError as refusal:
            yield answer, Failure(str(refusal))
        except Exception as error:
            sentence = zerogpu_errors.sentence(error)
            if not sentence:
                log.exception("a turn failed")
            yield answer, Failure(sentence or BROKEN, turn.cpu_model() if zerogpu_errors.lacks_gpu(error) else None)
        finally:
            if self._running.get(session) is running:
                del self._running[session]

    async def _deltas(
        self, running: TurnThread, reply: Callable[[], Iterator[Delta]], settings: Settings
    ) -> AsyncGenerator[Delta]:
        """Waits in the line, then yields the engine's deltas; yields no more if the visitor stops while waiting."""
        spec = registry.find(settings.model)
        needs_gpu = turn.needs_zerogpu(spec)
        line, admitted = (LINES[spec.name] if spec.engine == "local" and not needs_gpu else None), False
        try:
            if line:
                async with aclosing(line.enter(lambda: turn.POOL.max_running(spec))) as places:
                    async for place in places:
                        if running.stopped:
                            return
                        yield Delta(status=WAITING.format(place=place))
                admitted = True
            if running.stopped:
                return
            if needs_gpu:
                self._gpu_line.append(running)
            waiting = functools.partial(self._gpu_status, running) if needs_gpu else str
            async with aclosing(running.deltas(reply, waiting)) as deltas:
                async for delta in deltas:
                    yield _beside(delta, line, spec) if line else delta
        finally:
            if running in self._gpu_line:
                self._gpu_line.remove(running)
            if line and admitted:
                line.leave()

    def _gpu_status(self, running: TurnThread) -> str:
        """The turn's place among the turns of this Space that wait for a GPU. ZeroGPU does not report it."""
        ahead = self._gpu_line[: self._gpu_line.index(running)]
        place = 1 + sum(not other.begun for other in ahead)
        return f"Waiting for a GPU: you are number {place} in the line of this Space"

    async def chat(self, message: str, history: list[dict], *rest: Any) -> AsyncGenerator[str]:
        """Answer a message. Yields the answer so far.

        The server keeps the conversation of each client, unless `messages` (a list of {"role", "content"}) has the
        messages before this one. A setting that is left out takes the value that the model recommends.
        """
        *values, messages, request = rest
        taken = self.take_turn(message, history if messages is None else messages, values, request)
        async with aclosing(taken) as answers:
            async for answer, failure in answers:
                if failure:
                    other = failure.instead
                    way_out = f" Or name the model {other.name!r}, which needs no GPU." if other else ""
                    raise gr.Error(failure.sentence + way_out, print_exception=False)
                yield answer.text


def build_prompt(message: str, history: Sequence[Any], settings: Settings) -> tuple[list[Message], Answer]:
    """The messages for the model, and the words with which the answer has to begin. Raises `ChatError`."""
    if settings.plain:
        return build_plain_text(history, message), Answer()
    messages = build_messages(history, message, settings.system_prompt)
    begun = begun_with(settings) if message else Answer()
    if begun != Answer():
        messages.append(Message("assistant", rejoined(begun.text, begun.thought)))
    return messages, begun


def begun_with(settings: Settings) -> Answer:
    """The words with which the answer has to begin. Where the model thinks, they begin its thought."""
    start = settings.answer_start
    if not start:
        return Answer()
    traits = registry.traits(registry.find(settings.model))
    return Answer(thought=start) if settings.thinking or traits.always_thinks else Answer(text=start)


def _beside(delta: Delta, line: WaitingLine, spec: ModelSpec) -> Delta:
    """The delta with what ran beside it, if it is the last one."""
    if not delta.usage or line.num_running < 2:
        return delta
    total = turn.POOL.tokens_per_second(spec)
    return replace(delta, usage=replace(delta.usage, others=line.num_running - 1, total_tokens_per_second=total))


async def _answers(deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Answer]:
    """Yields the answer so far after each delta; the last one has a finish reason.

    It also yields, unchanged, after a heartbeat: Gradio can end the turn of a visitor who has left only after a yield.
    """
    answer = Answer()
    async with aclosing(deltas):
        async for delta in deltas:
            answer += delta
            yield answer
    if not answer.finish:
        yield answer + Delta(finish="stopped")


def with_named_parameters(chat: Callable[..., Any]) -> Callable[..., Any]:
    """`chat` with one parameter per setting: Gradio takes the API's parameter names from the signature."""

    async def named(*values: Any) -> AsyncGenerator[Any]:
        async with aclosing(chat(*values)) as answers:
            async for answer in answers:
                yield answer

    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    types = {"message": str, "history": list, **{n: o.kind for n, o in OPTIONS.items()}, "messages": list}
    parameters = [inspect.Parameter(n, plain, default=None, annotation=t) for n, t in types.items()]
    request = inspect.Parameter("request", plain, default=None, annotation=gr.Request)
    vars(named)["__signature__"] = inspect.Signature([*parameters, request])
    named.__annotations__ = types | {"request": gr.Request}
    named.__doc__ = chat.__doc__
    return named
