"""The chat: from what Gradio hands over to bubbles on the page or text for an API caller; it never locks the page."""

import asyncio
import functools
import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from parley import strategies
from parley.errors import BadSetting, ChatError
from parley.events import Answer, Delta
from parley.messages import Message, build_messages
from parley.models import registry
from parley.serving import turn
from parley.serving.turn_thread import TurnThread
from parley.serving.waiting_line import WaitingLine
from parley.settings import OPTIONS, Settings
from parley.ui import zerogpu_errors
from parley.ui.gpu_queue import leave_gpu_queue

log = logging.getLogger("parley")

Reply = Callable[[str, Sequence[Message], Settings, str], Iterator[Delta]]  # run, messages, settings, session
BROKEN = "Something went wrong inside Parley, and it has been logged. Press Retry, or try another model."


class ChatFunction:
    """Answers the visitors of one page with `reply`; knows who runs, so that Stop finds its turn."""

    def __init__(self, reply: Reply, max_running: int | None) -> None:
        self._reply = reply
        self.waiting_line = WaitingLine(max_running) if max_running else None
        self._running: dict[str, TurnThread] = {}  # by session
        self._for_a_gpu: list[TurnThread] = []  # in the order in which they asked for one

    def stop(self, request: gr.Request) -> None:
        """Ends what runs for this visitor; the chat then finishes on its usual road, with what there is."""
        if running := self._running.get(request.session_hash or ""):
            running.stop()

    async def take_turn(
        self, message: str, history: Sequence[Any], values: Sequence[Any], request: gr.Request
    ) -> AsyncGenerator[tuple[Answer, str]]:
        """Yields the answer so far and, if it ends with one, a sentence for the reader about what went wrong."""
        run_id, session, answer = uuid.uuid4().hex, request.session_hash or "", Answer()
        running = self._running[session] = TurnThread(lambda: turn.stop(run_id), leave_gpu_queue)
        try:
            settings = await self._settings(values)
            messages = build_messages(history, message, settings.system_prompt)
            deltas = self._deltas(running, lambda: self._reply(run_id, messages, settings, session), settings)
            async with aclosing(_answers(deltas)) as answers:
                async for answer in answers:
                    yield answer, ""
        except ChatError as refusal:
            yield answer, str(refusal)
        except Exception as error:
            sentence = zerogpu_errors.sentence(error)
            if not sentence:
                log.exception("a turn failed")
            yield answer, sentence or BROKEN
        finally:
            if self._running.get(session) is running:
                del self._running[session]

    async def _deltas(
        self, running: TurnThread, reply: Callable[[], Iterator[Delta]], settings: Settings
    ) -> AsyncGenerator[Delta]:
        """What the engine makes, after the wait for a place; nothing if the visitor stops while he waits."""
        local = registry.find(settings.model).engine == "local"
        line, admitted = (self.waiting_line if local else None), False
        for_a_gpu = local and not line
        try:
            if line:
                async with aclosing(line.enter()) as places:
                    async for place in places:
                        if running.stopped:
                            return
                        yield Delta(status=f"Waiting for a free place: you are number {place} in the line")
                admitted = True
            if running.stopped:
                return
            if for_a_gpu:
                self._for_a_gpu.append(running)
            waiting = functools.partial(self._place, running) if for_a_gpu else str
            async with aclosing(running.deltas(reply, waiting)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            if running in self._for_a_gpu:
                self._for_a_gpu.remove(running)
            if line and admitted:
                line.leave()

    def _place(self, running: TurnThread) -> str:
        """What ZeroGPU does not tell: who of this Space's visitors asked for a GPU earlier, and has none yet."""
        ahead = self._for_a_gpu[: self._for_a_gpu.index(running)]
        place = 1 + sum(not other.begun for other in ahead)
        return f"Waiting for a GPU: you are number {place} in the line of this Space"

    async def chat(self, message: str, history: list[dict], *rest: Any) -> AsyncGenerator[str]:
        """Answer a message. Yields the answer so far.

        The conversation is kept per client; pass the whole of it in `messages` (a list of {"role", "content"}) to do
        without. A setting that is left out takes the model's own recommendation.
        """
        *values, messages, request = rest
        asked = self.take_turn(message, history if messages is None else messages, values, request)
        async with aclosing(asked) as answers:
            async for answer, error in answers:
                if error:
                    raise gr.Error(error, print_exception=False)
                yield answer.text

    async def _settings(self, values: Sequence[Any]) -> Settings:
        given = dict(zip(OPTIONS, values, strict=True))
        name = given["model"] or next(iter(registry.models()))
        row = registry.find(name)
        traits = await asyncio.to_thread(registry.traits, row)
        settings = Settings.check(given | {"model": name}, traits.recommended)
        abilities = await asyncio.to_thread(registry.strategy_traits, row, traits)
        refusal = (
            strategies.find(settings.strategy).refusal(abilities) if "strategy" in row.capabilities.settings else ""
        )
        if refusal := refusal or row.capabilities.refusal(row.label, settings):
            raise BadSetting(refusal)
        return settings


async def _answers(deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Answer]:
    """Yields the whole answer so far after each delta; the last one has a finish reason.

    Heartbeats make it yield too, unchanged: Gradio ends a turn whose visitor has left only between two yields.
    """
    answer = Answer()
    async with aclosing(deltas):
        async for delta in deltas:
            answer += delta
            yield answer
    if not answer.finish:
        yield answer + Delta(finish="stopped")


def with_named_parameters(chat: Callable[..., Any]) -> Callable[..., Any]:
    """`chat` with a signature made from `Settings`, which is where Gradio takes the API's parameter names from."""

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
