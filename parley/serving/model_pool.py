"""The models in memory: each loaded once, lent to turns, and the longest unused given up when memory is short."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parley.engines import loader
from parley.engines.base import HEARTBEAT, Engine, Report
from parley.errors import ModelUnavailable
from parley.models import hardware, hub
from parley.models.hub import ModelRow
from parley.models.load_plan import Fit
from parley.models.precision import OPENVINO

if TYPE_CHECKING:  # importing torch takes seconds, and the page should be up before
    from parley.generation.prefix_cache import PrefixCache

LAST_TO_GO = "budgie"  # it is small, and the answer to "the Hub cannot be reached"
_log = logging.getLogger(__name__)


@dataclass
class _Entry:
    engine: Engine
    leases: int = 0

    @property
    def bytes(self) -> int:
        """The memory that is its engine's own, what is only set aside for it included."""
        return getattr(self.engine, "bytes", 0)

    @property
    def untouched(self) -> int:
        """What of these bytes is set aside, but was never written: the machine still counts it as free."""
        return getattr(self.engine, "untouched", 0)

    @property
    def prefixes(self) -> Sequence["PrefixCache"]:
        """What its engine remembers of conversations, beside these bytes."""
        return getattr(self.engine, "prefixes", ())

    @property
    def remembered(self) -> int:
        """In bytes."""
        return sum(prefixes.bytes for prefixes in self.prefixes)


class ModelPool:
    """Lends engines. One model is loaded at a time; those that are loaded answer meanwhile.

    `free` tells how many bytes of memory are free on so many GPUs, or in the machine. A model that is lent is never
    given up.
    """

    def __init__(self, free: Callable[[int], int] = hardware.free_memory) -> None:
        self._free = free
        self._entries: dict[ModelRow, _Entry] = {}  # the longest unused first
        self._entries_lock = threading.Lock()  # held for moments
        self._loading = threading.Lock()  # held for as long as a load takes
        self._status = ""
        self._refused: dict[ModelRow, ModelUnavailable] = {}

    @property
    def loaded(self) -> dict[str, int]:
        """The models in memory and their bytes, the longest unused first."""
        return {row.name: entry.bytes for row, entry in tuple(self._entries.items())}

    def room(self, fit: Fit) -> int:
        """The bytes that there would be for this plan, were all that is in memory given up."""
        entries = tuple(self._entries.values())
        return self._free(fit.cards) + sum(e.bytes - e.untouched + e.remembered for e in entries)

    @contextmanager
    def lease(self, row: ModelRow, report: Report, cancel: threading.Event) -> Iterator[Engine]:
        """The engine of this model, for the length of a `with` block; loads it first where needed.

        Raises `ModelUnavailable`, and `hub.LoadingStopped` when `cancel` is set before it is ready.
        """
        entry = self._take(row) or self._load(row, report, cancel)
        try:
            yield entry.engine
        finally:
            with self._entries_lock:
                entry.leases -= 1

    def place(self, rows: Iterable[ModelRow]) -> None:
        """Loads these models now, none at the cost of another; `check` knows what was refused."""
        with ExitStack() as leases:
            for row in rows:
                try:
                    leases.enter_context(self.lease(row, _log.info, threading.Event()))
                except ModelUnavailable as error:
                    _log.warning("%s", error)
                    self._refused[row] = error

    def check(self, row: ModelRow) -> None:
        """Raises what kept `place` from loading this model."""
        if row in self._refused:
            raise self._refused[row]

    def _take(self, row: ModelRow) -> _Entry | None:
        with self._entries_lock:
            entry = self._entries.pop(row, None)
            if entry is not None:
                self._entries[row] = entry  # now the last used
                entry.leases += 1
            return entry

    def _load(self, row: ModelRow, report: Report, cancel: threading.Event) -> _Entry:
        def told(sentence: str) -> None:
            self._status = sentence
            report(sentence)

        while not self._loading.acquire(timeout=HEARTBEAT):
            if cancel.is_set():
                raise hub.stopped(row)
            report(self._status)
        try:
            if entry := self._take(row):  # loaded by another turn meanwhile
                return entry
            entry = self._entry(row, told, cancel)
            with self._entries_lock:
                self._entries[row] = entry
                entry.leases += 1
            return entry
        finally:
            self._loading.release()

    def _entry(self, row: ModelRow, report: Report, cancel: threading.Event) -> _Entry:
        if row.engine == "parrot":
            from parley.engines.parrot import Parrot

            return _Entry(Parrot())
        if row.engine == "remote":
            from parley.engines.remote.engine import RemoteEngine
            from parley.models import remote_servers

            return _Entry(RemoteEngine(row, remote_servers.find(os.environ)))
        return _Entry(local_engine(loader.load(row, report, cancel, room=self._make_room)))

    def _make_room(self, fit: Fit) -> int:
        """Gives up what is remembered of conversations, then idle models, until there is memory for this plan; nothing
        where all would be in vain. Returns the free bytes.
        """

        def free() -> int:
            return max(0, self._free(fit.cards) - sum(e.untouched for e in self._entries.values()))

        with self._entries_lock:
            idle = [row for row, entry in self._entries.items() if not entry.leases]
            idle.sort(key=lambda row: row.name == LAST_TO_GO)
            spare = sum(e.remembered for e in self._entries.values()) + sum(self._entries[row].bytes for row in idle)
            if not free() < fit.need <= free() + spare:
                return free()
            for entry in self._entries.values():
                for prefixes in entry.prefixes:
                    prefixes.clear()
            hardware.return_memory()
            while idle and free() < fit.need:
                _log.info("Unloading %s", idle[0].name)
                del self._entries[idle.pop(0)]
                hardware.return_memory()
            return free()


def local_engine(loaded: loader.Loaded) -> Engine:
    """The engine for a model that was loaded here."""
    if loaded.fit.engine == OPENVINO:
        from parley.engines.openvino.engine import OpenVinoEngine

        return OpenVinoEngine(loaded)
    from parley.engines.local_engine import LocalEngine

    return LocalEngine(loaded)
