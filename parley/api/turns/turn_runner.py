"""Runs one turn of the page or of a program: it waits in the line of its model, and then runs in a thread."""

import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Any

from parley.events import Answer, Delta
from parley.generation.reasoning_parser import rejoined
from parley.messages import Message, build_messages, build_plain_text
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.serving import turn
from parley.serving.turn_thread import TurnThread
from parley.serving.waiting_line import LINE, Place, Ticket, Visitor
from parley.settings import Settings

# run, messages, settings, session, the tokens of the conversation where the session is new; `given`, see `turn.reply`
Reply = Callable[..., Iterator[Delta]]
WAITING = "Waiting for a free place: you are number {place} in the line, about {seconds} s"
Waits = Callable[[Place], None]  # is told the place in the line


def waiting_status(place: Place) -> str:
    """The sentence for a visitor who waits."""
    return WAITING.format(place=place.number, seconds=place.seconds)


def _ignore(place: Place) -> None:
    """Tells nobody the place in the line."""


class TurnRunner:
    """Runs turns with `reply`, and knows which of them wait for a GPU."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._gpu_line: list[TurnThread] = []  # turns that requested a GPU, in this order

    async def answers(
        self,
        running: TurnThread,
        run_id: str,
        messages: Sequence[Message],
        settings: Settings,
        visitor: Visitor,
        *,
        waits: Waits = _ignore,
        session: str = "",
        generated: Sequence[int] = (),
        given: Sequence[int] = (),
    ) -> AsyncGenerator[Answer]:
        """Yields the answer so far after each delta; the last one has a finish reason. The tokens: see `turn.reply`.

        It also yields, unchanged, after a heartbeat: Gradio can end the turn of a visitor who has left only after a
        yield.
        """
        reply = functools.partial(self._reply, run_id, messages, settings, session, generated, given=given)
        answer = Answer()
        async with aclosing(self._deltas(running, reply, registry.find(settings.model), visitor, waits)) as deltas:
            async for delta in deltas:
                answer += delta
                yield answer
        if not answer.finish:
            yield answer + Delta(finish="stopped")

    async def _deltas(
        self,
        running: TurnThread,
        reply: Callable[[], Iterator[Delta]],
        spec: ModelSpec,
        visitor: Visitor,
        waits: Waits,
    ) -> AsyncGenerator[Delta]:
        """Waits in the line, then yields the engine's deltas; yields no more if the visitor stops while waiting."""
        needs_gpu = turn.needs_zerogpu(spec)
        with ExitStack() as stack:
            ticket = stack.enter_context(LINE.enter(visitor, [spec]))
            async with aclosing(ticket.places()) as places:
                async for place in places:
                    if running.stopped:
                        return
                    waits(place)
                    yield Delta(status=waiting_status(place))
            if running.stopped:
                return
            if needs_gpu:
                self._gpu_line.append(running)
                stack.callback(self._gpu_line.remove, running)
            status = functools.partial(self._gpu_status, running) if needs_gpu else str
            async with aclosing(running.deltas(reply, status)) as deltas:
                async for delta in deltas:
                    ticket.record.saw(delta)
                    yield _beside(delta, ticket, spec)

    def _gpu_status(self, running: TurnThread) -> str:
        """The turn's place among the turns of this Space that wait for a GPU. ZeroGPU does not report it."""
        ahead = self._gpu_line[: self._gpu_line.index(running)]
        place = 1 + sum(not other.begun for other in ahead)
        return f"Waiting for a GPU: you are number {place} in the line of this Space"


def build_prompt(message: str, history: Sequence[Any], settings: Settings) -> tuple[list[Message], Answer]:
    """The messages for the model, and the words with which the answer has to begin. Raises `ChatError`."""
    if settings.plain:
        return build_plain_text(history, message), Answer()
    messages = build_messages(history, message, settings.system_prompt)
    begun = begun_with(settings) if messages[-1].role != "assistant" else Answer()
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


def _beside(delta: Delta, ticket: Ticket, spec: ModelSpec) -> Delta:
    """The delta with what ran beside it, if it is the last one."""
    if not delta.usage or not ticket.others:
        return delta
    total = turn.POOL.tokens_per_second(spec)
    return replace(delta, usage=replace(delta.usage, others=ticket.others, total_tokens_per_second=total))
