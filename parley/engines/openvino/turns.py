"""The turns that run in this process, and the sequences that each of them reads."""

import itertools
import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from parley.engines.openvino.paged_kv import BlockPool, BlockTable

_order = itertools.count()
_thread_local = threading.local()


class Waits(Protocol):
    """A scheduler, which may wait for a turn."""

    def leave(self, turn: "RunningTurn") -> None:
        """Takes note that it need not wait for this turn."""


class RunningTurn:
    """One turn. `order` is its place in the order of arrival; the background has the last place."""

    def __init__(self, order: float) -> None:
        self.order = order
        self._tables: weakref.WeakSet[BlockTable] = weakref.WeakSet()
        self._asked: list[Waits] = []  # the schedulers that it has asked
        self._was_evicted = False  # seldom; so most turns need not look at their sequences for every pass

    @property
    def is_background(self) -> bool:
        """Whether it is work that nobody waits for."""
        return self.order == math.inf

    def add(self, table: BlockTable) -> None:
        """Notes that the turn reads this sequence."""
        self._tables.add(table)

    def asks(self, scheduler: "Waits") -> None:
        """Notes that it asks this scheduler now, and so no other one need wait for it."""
        for other in self._asked:
            if other is not scheduler:
                other.leave(self)
        if scheduler not in self._asked:
            self._asked.append(scheduler)

    def end(self) -> None:
        """Tells the schedulers that it will ask no more."""
        for scheduler in self._asked:
            scheduler.leave(self)

    def tables(self, pool: BlockPool) -> list[BlockTable]:
        """Its sequences in this pool, the longest first."""
        return sorted((table for table in self._tables if table.pool is pool), key=lambda table: -len(table.ids))

    def evict(self, pool: BlockPool) -> None:
        """Releases the blocks of its sequences in this pool, which have to be read again."""
        self._was_evicted = True
        for table in self.tables(pool):
            table.evict()

    def evicted(self, pool: BlockPool) -> list[BlockTable]:
        """Those of `tables` that have to be read again."""
        return [table for table in self.tables(pool) if table.is_evicted] if self._was_evicted else []


class Turns:
    """Counts the turns that run in this process, so that background work can wait until none runs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[RunningTurn] = set()

    @property
    def running_turns(self) -> Sequence[RunningTurn]:
        """The turns that run."""
        return tuple(self._running)

    @property
    def num_running(self) -> int:
        """How many turns run."""
        return len(self._running)

    @contextmanager
    def running(self) -> Iterator[RunningTurn]:
        """Makes a new turn that of this thread during a `with` block."""
        _thread_local.turn = turn = RunningTurn(next(_order))
        with self._changed:
            self._running.add(turn)
        try:
            yield turn
        finally:
            _thread_local.turn = None
            turn.end()
            with self._changed:
                self._running.discard(turn)
                self._changed.notify_all()

    def wait_for_idle(self, seconds: float) -> bool:
        """Waits until no turn runs, but at most `seconds`; returns whether no turn runs."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)


TURNS = Turns()


@contextmanager
def stand_in(turn: RunningTurn) -> Iterator[None]:
    """Makes `turn` that of this thread during a `with` block, in which the thread does its work."""
    before = getattr(_thread_local, "turn", None)
    _thread_local.turn = turn
    try:
        yield
    finally:
        _thread_local.turn = before


def current() -> RunningTurn:
    """The turn of this thread; a new one in the background where there is none."""
    return getattr(_thread_local, "turn", None) or RunningTurn(math.inf)
