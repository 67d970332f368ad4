"""Columns of a comparison that run at the same time: their engines, their threads, and what is measured of them."""

import contextvars
import math
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from parley.engines.base import Engine, TurnRequest
from parley.errors import ChatError, NoRoom
from parley.events import HEARTBEAT, STATUSES, Answer, ColumnEvent, Delta, Figures
from parley.messages import Message
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.serving import text_measures, turn
from parley.settings import Settings

MAX_COLUMNS = 6
STOPPED = Delta(finish="stopped")

Explain = Callable[[Exception], str]  # logs an error that is a bug, and gives the sentence for the visitor


@dataclass(frozen=True)
class Column:
    """What one column answers, and how. `number` is its place in the comparison."""

    number: int
    messages: Sequence[Message]
    settings: Settings
    measured: bool = True  # whether its answer is scored and measured afterwards

    @property
    def spec(self) -> ModelSpec:
        """The model that answers."""
        return registry.find(self.settings.model)

    @property
    def models(self) -> list[ModelSpec]:
        """The model that answers and, if the strategy uses one, its draft model."""
        return [spec for spec in turn.models_of(self.settings) if spec]

    @property
    def needs_gpu(self) -> bool:
        """Whether it runs in a GPU process of ZeroGPU."""
        return turn.needs_zerogpu(self.spec)


@dataclass
class Work:
    """What the threads of a comparison share. They put what they make into `made`."""

    session: str
    generated: Sequence[int]
    explain: Explain | None
    cancels: dict[int, threading.Event] = field(default_factory=dict)  # of the columns that run in this process
    answers: defaultdict[int, Answer] = field(default_factory=lambda: defaultdict(Answer))
    made: "queue.SimpleQueue[ColumnEvent | BaseException | None]" = field(default_factory=queue.SimpleQueue)
    num_threads: int = 0

    def start(self, work: Callable[[], None]) -> None:
        """Runs this in a thread, with the context of the request, from which `spaces` takes the visitor's quota."""

        def target() -> None:
            try:
                work()
            except BaseException as error:
                self.made.put(error)
            finally:
                self.made.put(None)

        self.num_threads += 1
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(target,), daemon=True, name="column").start()

    def drained(self) -> Iterator[ColumnEvent]:
        """Yields what comes until all threads have ended, and heartbeats."""
        while self.num_threads:
            try:
                item = self.made.get(timeout=HEARTBEAT)
            except queue.Empty:
                item = ColumnEvent()
            if item is None:
                self.num_threads -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                if item.delta and item.column is not None:
                    self.answers[item.column] += item.delta
                yield item

    def tell(self, column: Column, error: Exception) -> None:
        """Tells in the column what went wrong in it. Raises an error that is a bug, where nobody explains it."""
        if isinstance(error, ChatError):
            self.made.put(ColumnEvent(column.number, error=str(error), code=error.code))
        elif self.explain:
            self.made.put(ColumnEvent(column.number, error=self.explain(error)))
        else:
            raise error


class ColumnBatch:
    """The columns that run at the same time, and the engines of their models."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.columns: list[Column] = []
        self._engines: dict[ModelSpec, Engine] = {}
        self._failed: dict[ModelSpec, ChatError] = {}
        self._shared: dict[ModelSpec, Any] = {}
        self._places: dict[ModelSpec, threading.Semaphore] = {}

    def lease(self, leases: ExitStack, waiting: Sequence[Column]) -> Generator[ColumnEvent, None, list[Column]]:
        """Leases the engines of these columns. Returns those that have to wait until there is room for their models.

        Models that are loaded come first, so that none is unloaded for another one of this comparison.
        """
        later: list[Column] = []
        loaded = turn.POOL.loaded
        for column in sorted(waiting, key=lambda each: any(spec.name not in loaded for spec in each.models)):
            try:
                for spec in column.models:
                    yield from self._take(leases, spec, waiting)
            except NoRoom as refusal:
                if self.columns:
                    if column.spec not in {each.spec for each in later}:
                        first, second = self.columns[0].spec.label, column.spec.label
                        yield ColumnEvent(notice=STATUSES["one_by_one"].format(first=first, second=second))
                    later.append(column)
                else:
                    yield ColumnEvent(column.number, error=str(refusal), code=refusal.code)
            except ChatError as refusal:
                stopped = self._work.cancels[column.number].is_set()
                told: dict[str, Any] = {"error": str(refusal), "code": refusal.code}
                yield ColumnEvent(column.number, **({"delta": STOPPED} if stopped else told))
            else:
                self.columns.append(column)
        return sorted(later, key=lambda each: each.number)

    def _take(self, leases: ExitStack, spec: ModelSpec, waiting: Sequence[Column]) -> Iterator[ColumnEvent]:
        """Leases this engine. Yields the status in the columns that wait for it."""
        if spec in self._failed:
            raise self._failed[spec]
        if spec in self._engines:
            return
        cancel = _AllSet([self._work.cancels[each.number] for each in waiting])
        loading = turn.lease(leases, spec, cancel)
        try:
            while True:
                delta = next(loading)
                for each in waiting:
                    if spec in each.models:
                        yield ColumnEvent(each.number, delta)
        except StopIteration as end:
            engine = self._engines[spec] = end.value
        except ChatError as refusal:
            self._failed[spec] = refusal
            raise
        needs_states = any(each.settings.effective_strategy.needs_full_prefill for each in waiting)
        self._shared[spec] = engine.shared_prompts(self._work.session, needs_states)
        self._places[spec] = threading.Semaphore(engine.max_running if spec.engine == "local" else MAX_COLUMNS)

    def _request(self, column: Column, cancel: threading.Event) -> TurnRequest:
        spec, draft = turn.models_of(column.settings)
        return TurnRequest.of(
            column.messages,
            column.settings,
            cancel,
            self._engines[draft] if draft else None,
            generated=self._work.generated,
            shared=self._shared[spec],
        )

    def answer(self, column: Column) -> None:
        """Answers a column. What goes wrong is told in the column."""
        work, cancel, places = self._work, self._work.cancels[column.number], self._places[column.spec]
        while not places.acquire(timeout=HEARTBEAT):
            if cancel.is_set():
                return work.made.put(ColumnEvent(column.number, STOPPED))
        try:
            for delta in self._engines[column.spec].stream(self._request(column, cancel)):
                work.made.put(ColumnEvent(column.number, delta))
        except Exception as error:
            work.tell(column, error)
        finally:
            places.release()
        return None

    def score(self, others: Sequence[Column], cancel: threading.Event) -> None:
        """Measures these columns, and scores the texts of `others` by one model: that of the first column here."""
        work = self._work
        for each in self.columns:
            if each.measured and each.number in work.answers:
                work.made.put(ColumnEvent(each.number, figures=self._figures(each, cancel)))
        judge = next((each for each in self.columns if each.spec.engine == "local"), None)
        if not judge or not others:
            return
        work.made.put(ColumnEvent(scored_by=judge.spec.label))
        for each in others:
            text = work.answers[each.number].text
            if text and (found := self._logprobs(judge, text, cancel)):
                bits = -sum(found) / math.log(2) / len(text.encode())
                work.made.put(ColumnEvent(each.number, figures=Figures(bits_per_byte=bits)))

    def _figures(self, column: Column, cancel: threading.Event) -> Figures:
        answer = self._work.answers[column.number]
        found, words = self._logprobs(column, answer.ids, cancel), text_measures.words(answer.text)
        return Figures(
            len(words),
            text_measures.distinct(words, 2),
            text_measures.repeated(words, 4),
            sum(found) / len(found) if found else None,
        )

    def _logprobs(self, column: Column, answer: str | Sequence[int], cancel: threading.Event) -> list[float]:
        """By the model of this column; empty where it has none to tell, and where it cannot read so much."""
        if column.spec.engine != "local" or not answer or cancel.is_set():
            return []
        try:
            return self._engines[column.spec].logprobs(self._request(column, cancel), answer)
        except ChatError:  # the answer would not fit after the prompt
            return []


class _AllSet(threading.Event):
    """Is set when all these events are."""

    def __init__(self, events: Sequence[threading.Event]) -> None:
        super().__init__()
        self._events = events

    def is_set(self) -> bool:
        """Whether all are."""
        return all(each.is_set() for each in self._events)

    def set(self) -> None:
        """Sets all."""
        for each in self._events:
            each.set()
