"""The waiting line, which admits every turn, whichever way it came in. It is fair between visitors.

So many turns of a model run at a time, and so many of a visitor; the others wait, and know their place. The visitors
who wait take turns (round robin), so that who asks for four answers delays each of the others by one of them.
"""

import asyncio
import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from parley.config import (
    MAX_TURNS,
    MAX_WAIT_SECONDS,
    MAX_WAITING_TURNS,
    TURNS_PER_ADDRESS,
    TURNS_PER_MINUTE,
    TURNS_PER_VISITOR,
    WAITING_PER_VISITOR,
)
from parley.errors import TurnRefused
from parley.models.spec import ModelSpec
from parley.serving import turn
from parley.serving.operations import ending
from parley.serving.operations.metrics import METRICS, REFUSALS
from parley.serving.operations.turn_log import TurnRecord

POLL_SECONDS = 0.25  # how often a waiting turn yields; Gradio can end it then if its visitor has left
UNKNOWN_SECONDS = 10.0  # what a turn is expected to take before one has ended
NEWEST = 0.2  # the weight of the last turn in the mean of what turns take
MINUTE = 60.0


@dataclass(frozen=True)
class Visitor:
    """Who asks. Neither logs nor metrics have it."""

    name: str  # the session of a page or of a program, or the digest of an API key
    address: str = ""  # of the client; empty where it is not known


@dataclass(frozen=True)
class Place:
    """Where a turn stands in the line."""

    number: int  # 1 is next
    seconds: int  # after which it will probably begin


@dataclass(eq=False)
class Ticket:
    """A turn in the line, and then running, during a `with` block."""

    line: "WaitingLine"
    visitor: Visitor
    needs: Counter[ModelSpec | None]  # turns of each model that computes in this process; None: of all models
    record: TurnRecord
    admitted: asyncio.Event = field(default_factory=asyncio.Event)

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.line.leave(self)
        self.record.write(error)

    async def places(self) -> AsyncGenerator[Place]:
        """Yields the place while the turn waits, at least every `POLL_SECONDS`, and ends once it is admitted.

        Raises `TurnRefused` after the longest waiting time.
        """
        entered = time.monotonic()
        while not self.admitted.is_set():
            if self.line.ending.is_set():
                raise ending.refusal()
            if time.monotonic() >= entered + MAX_WAIT_SECONDS.read():
                raise self.line.refusal("busy", "No place became free in time.", self.line.place(self).seconds)
            yield self.line.place(self)
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self.admitted.wait()
            except TimeoutError:
                self.line.look_again()

    @property
    def others(self) -> int:
        """How many other turns of its models run."""
        return sum(self.line.num_running(spec) - number for spec, number in self.needs.items() if spec)


class WaitingLine:
    """Admits turns. To be used in one event loop only, and by everything that begins a turn."""

    def __init__(
        self,
        max_running: Callable[[ModelSpec], int] = turn.POOL.max_running,
        ends: threading.Event = ending.ENDING,
    ) -> None:
        self._max_running, self.ending = max_running, ends
        self._waiting: dict[str, deque[Ticket]] = {}  # by visitor; whose turn it is comes first
        self._running: set[Ticket] = set()
        self._taken: Counter[ModelSpec | None] = Counter()  # turns that run
        self._addresses: Counter[str] = Counter()  # turns that run or wait
        self._recent: dict[str, deque[float]] = {}  # when the turns of a visitor came, within a minute
        self._seconds: dict[ModelSpec | None, float] = {}  # that a turn takes
        self._places: dict[Ticket, Place] = {}  # empty after every change
        self._looked = 0.0  # when it was last looked who can be admitted

    def enter(self, visitor: Visitor, specs: Sequence[ModelSpec]) -> Ticket:
        """A ticket for a turn of this model, or of several that run together. Then `places` has to be read.

        A comparison is one turn of its visitor. Raises `TurnRefused` at once where the visitor, the address or all
        together have too many.
        """
        here = [spec for spec in specs if spec.engine == "local" and not turn.needs_zerogpu(spec)]
        needs = Counter[ModelSpec | None](here) + Counter({None: max(1, len(specs))})
        ticket = Ticket(self, visitor, needs, TurnRecord([spec.name for spec in specs] or [""]))
        try:
            self._enter(ticket)
        except TurnRefused as refusal:
            METRICS.add(REFUSALS, code=refusal.code)
            raise
        return ticket

    def _enter(self, ticket: Ticket) -> None:
        visitor = ticket.visitor
        self._refuse(visitor)
        self._waiting.setdefault(visitor.name, deque()).append(ticket)
        self._addresses[visitor.address] += 1
        self._places.clear()
        self.admit()
        if not ticket.admitted.is_set():
            seconds = self.place(ticket).seconds
            own = len(self._waiting[visitor.name])
            if own > (most := WAITING_PER_VISITOR.read()):
                self.leave(ticket)
                raise self.refusal("too_many", f"{most} of your answers wait already.", seconds)
            if self.num_waiting() > MAX_WAITING_TURNS.read():
                self.leave(ticket)
                raise self.refusal("busy", f"{self.num_waiting()} people are waiting already.", seconds)
        self._note(visitor.name)

    def leave(self, ticket: Ticket) -> None:
        """Frees the place of a turn that waits or runs."""
        if ticket in self._running:
            self._running.remove(ticket)
            self._taken -= ticket.needs
            self._learn(ticket)
        else:
            self._remove(ticket)
        self._addresses[ticket.visitor.address] -= 1
        self._addresses += Counter()  # without zeros
        self._places.clear()
        self.admit()

    def admit(self) -> None:
        """Admits waiting turns while there is room for the next one. `_order` says which one is next."""
        self._looked = time.monotonic()
        while not self.ending.is_set() and (ticket := self._next()):
            self._places.clear()
            self._remove(ticket)
            if own := self._waiting.pop(ticket.visitor.name, None):
                self._waiting[ticket.visitor.name] = own  # after all others
            self._running.add(ticket)
            self._taken += ticket.needs
            ticket.record.began = time.monotonic()
            ticket.admitted.set()

    def look_again(self) -> None:
        """Calls `admit` again: a model that was loaded meanwhile may run more turns at a time."""
        if time.monotonic() >= self._looked + POLL_SECONDS:
            self.admit()

    def place(self, ticket: Ticket) -> Place:
        """Where a waiting ticket stands among those that need the same model, or are of the same visitor."""
        if not self._places:
            self._places = dict(self._reckoned())
        return self._places.get(ticket, Place(1, 1))

    def num_running(self, spec: ModelSpec | None = None) -> int:
        """How many turns of this model run, or of all models."""
        return self._taken[spec]

    def num_waiting(self, spec: ModelSpec | None = None) -> int:
        """How many wait for this model, or for any."""
        return sum(spec in ticket.needs for own in self._waiting.values() for ticket in own)

    @property
    def is_idle(self) -> bool:
        """Whether nobody runs or waits."""
        return not self._running and not self._waiting

    def refusal(self, code: str, sentence: str, seconds: float) -> TurnRefused:
        """Says when to come back."""
        seconds = max(1, math.ceil(seconds))
        return TurnRefused(f"{sentence} Press Retry in {seconds} s.", code, seconds)

    def _refuse(self, visitor: Visitor) -> None:
        """Raises `TurnRefused` for what does not depend on who else waits."""
        if self.ending.is_set():
            raise ending.refusal()
        most = TURNS_PER_ADDRESS.read()
        if visitor.address and self._addresses[visitor.address] >= most:
            seconds = self._mean(None)
            raise self.refusal("too_many", f"{most} answers of your network run or wait already.", seconds)
        recent = self._recent.get(visitor.name)
        if (most := TURNS_PER_MINUTE.read()) and recent:
            in_time = [each for each in recent if each > time.monotonic() - MINUTE]
            if len(in_time) >= most:
                seconds = in_time[-most] + MINUTE - time.monotonic()
                raise self.refusal("too_often", f"You asked {most} times within a minute.", seconds)

    def _note(self, name: str) -> None:
        """Remembers when a visitor asked, and forgets what is older than a minute."""
        if not TURNS_PER_MINUTE.read():
            return
        now = time.monotonic()
        self._recent.setdefault(name, deque()).append(now)
        for each in [each for each, times in self._recent.items() if times[-1] < now - MINUTE]:
            del self._recent[each]
        while self._recent[name][0] < now - MINUTE:
            self._recent[name].popleft()

    def _order(self) -> Iterator[Ticket]:
        """The waiting tickets by round robin: the first one of each visitor, then the second ones."""
        rounds = itertools.zip_longest(*self._waiting.values())
        return (ticket for each in rounds for ticket in each if ticket)

    def _capacity(self, spec: ModelSpec | None) -> int:
        return max(1, self._max_running(spec)) if spec else MAX_TURNS.read()

    def _next(self) -> Ticket | None:
        """Who is admitted next; None where there is room for nobody.

        Who has to wait for room keeps what there is of it from all behind, so that a comparison is not passed for
        ever. Who waits for a turn of their own keeps nothing.
        """
        most = TURNS_PER_VISITOR.read()
        own = Counter(ticket.visitor.name for ticket in self._running)
        room: dict[ModelSpec | None, int] = {}
        for ticket in self._order():
            if own[ticket.visitor.name] >= most:
                continue
            fits = True
            for spec, number in ticket.needs.items():
                capacity = self._capacity(spec)
                left = room.setdefault(spec, capacity - self._taken[spec])
                fits = fits and left >= min(number, capacity)
                room[spec] = left - min(number, capacity)
            if fits:
                return ticket
        return None

    def _reckoned(self) -> Iterator[tuple[Ticket, Place]]:
        """The places of all who wait."""
        before: Counter[ModelSpec | str | None] = Counter()
        most = TURNS_PER_VISITOR.read()
        for ticket in self._order():
            models = [spec for spec in ticket.needs if spec]
            full = [spec for spec in ticket.needs if self._taken[spec] + before[spec] >= self._capacity(spec)]
            name = ticket.visitor.name
            number = 1 + max((before[each] for each in full or models or [name]), default=0)
            waits = [(1 + before[spec]) * self._mean(spec) / self._capacity(spec) for spec in full]
            waits.append(self._mean(models[0] if models else None) * (1 + before[name]) / most)
            before.update([*models, None, name])
            yield ticket, Place(number, max(1, math.ceil(max(waits) if full else waits[-1])))

    def _mean(self, spec: ModelSpec | None) -> float:
        return self._seconds.get(spec, UNKNOWN_SECONDS)

    def _learn(self, ticket: Ticket) -> None:
        """How long turns take."""
        took = time.monotonic() - (ticket.record.began or 0.0)
        for spec in ticket.needs:
            self._seconds[spec] = took + (1 - NEWEST) * (self._seconds.get(spec, took) - took)

    def _remove(self, ticket: Ticket) -> None:
        own = self._waiting[ticket.visitor.name]
        own.remove(ticket)
        if not own:
            del self._waiting[ticket.visitor.name]


LINE = WaitingLine()
ending.IDLE.append(lambda: LINE.is_idle)
