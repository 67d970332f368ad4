"""Runs a comparison for the page and for programs, and yields it as JSON: what compare_view.js draws."""

import asyncio
import functools
import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from parley import strategies
from parley.api.turns.cancelling import cancellable_call
from parley.api.turns.failures import explained
from parley.api.turns.gpu_queue import leave_gpu_queue
from parley.api.turns.turn_runner import build_prompt, waiting_status
from parley.errors import BadConversation, BadSetting, ChatError
from parley.events import STATUSES, Answer, ColumnEvent, Delta, Figures
from parley.models import registry
from parley.serving import comparison, turn_settings
from parley.serving.column_batch import Column
from parley.serving.turn_thread import TurnThread
from parley.serving.waiting_line import LINE, Place, Visitor
from parley.settings import Settings
from parley.strategies.strategy import SOONER
from parley.ui import render, stored_answer

FORM_VERSION = 1  # of the JSON
PAUSE = 0.1  # seconds: the shortest time between two states


@dataclass
class ColumnState:
    """A column as it is shown."""

    settings: Settings | None  # None where they were refused
    given: Mapping[str, Any]  # as they were asked for
    answer: Answer = field(default_factory=Answer)
    begun: Answer = field(default_factory=Answer)  # the words with which the answer has to begin
    figures: Figures = field(default_factory=Figures)
    status: str = ""
    error: str = ""

    def json(self, one_tokenizer: bool) -> dict[str, Any]:
        """The column for a browser or a program."""
        answer, usage = self.answer, self.answer.usage
        settings = dict(answer.origin.settings) if answer.origin else self.settings and self.settings.model_dump()
        stored = stored_answer.write(answer, Answer()) if answer.finish and not self.error else None
        drafts = self.settings is not None and self.settings.effective_strategy.group == SOONER
        speed = {
            "tokens": usage and usage.new_tokens,
            "tokens_per_second": usage and usage.tokens_per_second,
            "time_to_first_token": usage and usage.time_to_first_token,
            "seconds": usage and usage.seconds,
            "prompt_tokens": usage and usage.prompt_tokens,
            "cached_tokens": usage and usage.cached_tokens,
            "drafted": usage and usage.drafted if drafts else None,
            "accepted": usage and usage.accepted if drafts else None,
        }
        logprob = self.figures.logprob
        measured = asdict(self.figures) | {
            "perplexity": math.exp(-logprob) if one_tokenizer and logprob is not None and logprob > -700 else None
        }
        return {
            "settings": settings or dict(self.given),
            "model": _label(settings or self.given, "model"),
            "strategy": _label(settings or self.given, "strategy"),
            "text": self.begun.text + answer.text,
            "thought": self.begun.thought + answer.thought,
            "beams": [asdict(each) for each in answer.beams],
            "status": self.status if not answer.finish else "",
            "notices": list(answer.notices),
            "finish": answer.finish,
            "error": self.error,
            "stats": render.stats_line(answer) if answer.finish else "",
            "figures": speed | measured,
            "stored": stored,
        }


def _label(settings: Mapping[str, Any], name: str) -> str:
    """The display name of the model or the strategy."""
    value = str(settings.get(name) or "")
    if name == "strategy":
        return strategies.STRATEGIES[value].label if value in strategies.STRATEGIES else value
    row = registry.models().get(value)
    return row.label if row else value.rpartition("/")[2]


@dataclass
class ComparisonState:
    """A comparison so far."""

    question: str
    columns: list[ColumnState]
    one_tokenizer: bool = True
    notices: list[str] = field(default_factory=list)
    scored_by: str = ""
    gpu_seconds: int | None = None
    over: bool = False

    def take(self, event: ColumnEvent | Delta) -> None:
        """Adds what is new. A delta by itself is a heartbeat before anything has begun."""
        if isinstance(event, Delta):
            for each in self.columns:
                each.status = event.status or each.status
            return
        self.notices += [event.notice] if event.notice else []
        self.scored_by = event.scored_by or self.scored_by
        self.gpu_seconds = event.gpu_seconds or self.gpu_seconds
        if event.column is None:
            return
        column = self.columns[event.column]
        if event.delta:
            column.answer += event.delta
            column.status = column.answer.status
        if event.figures:
            column.figures |= event.figures
        column.error = event.error or column.error

    def json(self) -> dict[str, Any]:
        """The comparison for a browser or a program."""
        return {
            "version": FORM_VERSION,
            "question": self.question,
            "columns": [each.json(self.one_tokenizer) for each in self.columns],
            "notices": list(self.notices),
            "one_tokenizer": self.one_tokenizer,
            "scored_by": self.scored_by,
            "gpu_seconds": self.gpu_seconds,
            "over": self.over,
        }


@dataclass(frozen=True)
class Question:
    """What is compared. All of it comes from a visitor or a program."""

    message: str
    history: Sequence[Any]  # the messages before it
    columns: Sequence[Mapping[str, Any]]  # the settings of each
    generated: Sequence[int] = ()  # see `turn.reply`

    def prepare(self) -> tuple[ComparisonState, list[Column]]:
        """The empty state, with an error in each column that was refused, and the other columns.

        Raises `ChatError` for what concerns all.
        """
        if not isinstance(self.columns, list | tuple) or not all(isinstance(each, Mapping) for each in self.columns):
            raise BadSetting('The columns are a list of settings such as [{"strategy": "greedy"}, {"seed": 7}].')
        if not isinstance(self.message, str):
            raise BadConversation("The message must be text.")
        comparison.check(self.columns)
        states, columns = list[ColumnState](), list[Column]()
        for number, given in enumerate(self.columns):
            try:
                settings = turn_settings.read(given)
                messages, begun = build_prompt(self.message, self.history, settings)
            except BadConversation:
                raise
            except ChatError as refusal:
                states.append(ColumnState(None, given, error=str(refusal)))
            else:
                states.append(ColumnState(settings, given, begun=begun))
                columns.append(Column(number, messages, settings))
        specs = [each.spec for each in columns]
        return ComparisonState(self.message, states, not specs or registry.have_one_tokenizer(specs)), columns


@dataclass
class _Running:
    thread: TurnThread
    run_id: str
    columns: Sequence[Column]


class CompareFunction:
    """Runs the comparisons of all visitors. `worker` runs columns in a GPU process of ZeroGPU."""

    def __init__(self, worker: comparison.GpuWorker | None = None) -> None:
        self._worker = worker
        self._running: dict[str, _Running] = {}  # by session

    def stop(self, session: str, number: int | None = None) -> None:
        """Ends one column of this visitor's comparison, or all. What there is then comes as usual."""
        if not (running := self._running.get(session)):
            return
        if number is None:
            running.thread.stop()
        else:
            comparison.stop(running.run_id, running.columns, number)

    async def states(
        self,
        question: Question,
        visitor: Visitor,
        *,
        strict: bool = False,
        waits: Callable[[Place], None] = lambda _: None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yields the comparison so far. Raises `ChatError` for what concerns all columns.

        If `strict`, it also raises for a column whose settings are refused. `waits` is told the place in the line.
        """
        state, columns = await asyncio.to_thread(question.prepare)
        for number, each in enumerate(state.columns, start=1):
            if strict and each.error:
                raise ChatError(f"Column {number}: {each.error}")
        yield state.json()
        run_id, session = uuid.uuid4().hex, visitor.name
        thread = TurnThread(lambda: comparison.stop(run_id, columns), leave_gpu_queue)
        running = self._running[session] = _Running(thread, run_id, columns)
        start = functools.partial(
            comparison.compare,
            *(run_id, columns, session, question.generated),
            explain=lambda error: str(explained(error)),
            worker=self._worker,
        )
        shown_at = time.monotonic()
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(cancellable_call(thread.stop))
                ticket = stack.enter_context(LINE.enter(visitor, [each.spec for each in columns]))
                async for place in await stack.enter_async_context(aclosing(ticket.places())):
                    if thread.stopped:
                        break
                    waits(place)
                    state.take(Delta(status=waiting_status(place)))
                    yield state.json()
                if columns and not thread.stopped:
                    events = await stack.enter_async_context(aclosing(thread.deltas(start, _waiting(columns))))
                    async for event in events:
                        ticket.record.saw(event)
                        state.take(event)
                        if time.monotonic() > shown_at + PAUSE:
                            yield state.json()
                            shown_at = time.monotonic()
        finally:
            if self._running.get(session) is running:
                del self._running[session]
        for each in state.columns:
            if not each.answer.finish and not each.error:
                each.answer += Delta(finish="stopped")
        yield replace(state, over=True).json()


def _waiting(columns: Sequence[Column]) -> Any:
    return (lambda: STATUSES["gpu"]) if any(each.needs_gpu for each in columns) else str
