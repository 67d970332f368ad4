"""The models in memory: each loaded once, lent to turns, and the longest unused given up when memory is short."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parley.engines import loader
from parley.engines.base import Engine
from parley.errors import ModelUnavailable
from parley.events import HEARTBEAT, Report
from parley.models import hardware, hub
from parley.models.load_plan import LoadPlan
from parley.models.precision import OPENVINO
from parley.models.spec import ModelSpec

if TYPE_CHECKING:  # importing torch takes seconds, and the page should be up before
    from parley.engines.local_engine import LocalEngine
    from parley.generation.loaded_model import LoadedModel

LAST_TO_GO = "budgie"  # it is small, and the answer to "the Hub cannot be reached"
_log = logging.getLogger(__name__)


@dataclass
class _Entry:
    engine: Engine
    leases: int = 0

    @property
    def cached_bytes(self) -> int:
        """The memory of the conversations that its engine keeps, beside that of the model."""
        return sum(cache.bytes for cache in self.engine.prefix_caches)


class ModelPool:
    """Lends engines. One model is loaded at a time; those that are loaded answer meanwhile.

    `free` tells how many bytes of memory are free on so many GPUs, or in the machine. A model that is lent is never
    given up.
    """

    def __init__(self, free: Callable[[int], int] = hardware.free_memory) -> None:
        self._free = free
        self._entries: dict[ModelSpec, _Entry] = {}  # the longest unused first
        self._entries_lock = threading.Lock()  # held for moments
        self._loading = threading.Lock()  # held for as long as a load takes
        self._status = ""
        self._refused: dict[ModelSpec, ModelUnavailable] = {}

    @property
    def loaded(self) -> dict[str, int]:
        """The models in memory and their bytes, the longest unused first."""
        return {spec.name: entry.engine.memory_bytes for spec, entry in tuple(self._entries.items())}

    @property
    def cached_bytes(self) -> int:
        """The memory of all conversations that engines keep beside their models."""
        return sum(entry.cached_bytes for entry in tuple(self._entries.values()))

    @property
    def unwritten_bytes(self) -> int:
        """What engines have reserved and never written: the machine still counts it as free."""
        return sum(entry.engine.unwritten_bytes for entry in tuple(self._entries.values()))

    def available_bytes(self, plan: LoadPlan) -> int:
        """The bytes that there would be for this plan, were all that is in memory given up."""
        held = sum(self.loaded.values()) - self.unwritten_bytes + self.cached_bytes
        return self._free(plan.cards) + held

    @contextmanager
    def lease(self, spec: ModelSpec, report: Report, cancel: threading.Event) -> Iterator[Engine]:
        """The engine of this model, for the length of a `with` block; loads it first where needed.

        Raises `ModelUnavailable`, and `hub.LoadingStopped` when `cancel` is set before it is ready.
        """
        entry = self._take(spec) or self._load(spec, report, cancel)
        try:
            yield entry.engine
        finally:
            with self._entries_lock:
                entry.leases -= 1

    def preload(self, specs: Iterable[ModelSpec]) -> None:
        """Loads these models now, none at the cost of another; `check` knows what was refused."""
        with ExitStack() as leases:
            for spec in specs:
                try:
                    leases.enter_context(self.lease(spec, _log.info, threading.Event()))
                except ModelUnavailable as error:
                    _log.warning("%s", error)
                    self._refused[spec] = error

    def check(self, spec: ModelSpec) -> None:
        """Raises what kept `place` from loading this model."""
        if spec in self._refused:
            raise self._refused[spec]

    def _take(self, spec: ModelSpec) -> _Entry | None:
        with self._entries_lock:
            entry = self._entries.pop(spec, None)
            if entry is not None:
                self._entries[spec] = entry  # now the last used
                entry.leases += 1
            return entry

    def _load(self, spec: ModelSpec, report: Report, cancel: threading.Event) -> _Entry:
        def told(sentence: str) -> None:
            self._status = sentence
            report(sentence)

        while not self._loading.acquire(timeout=HEARTBEAT):
            if cancel.is_set():
                raise hub.stopped(spec)
            report(self._status)
        try:
            if entry := self._take(spec):  # loaded by another turn meanwhile
                return entry
            entry = self._entry(spec, told, cancel)
            with self._entries_lock:
                self._entries[spec] = entry
                entry.leases += 1
            return entry
        finally:
            self._loading.release()

    def _entry(self, spec: ModelSpec, report: Report, cancel: threading.Event) -> _Entry:
        if spec.engine == "parrot":
            from parley.engines.parrot import Parrot

            return _Entry(Parrot())
        if spec.engine == "remote":
            from parley.engines.remote.engine import RemoteEngine
            from parley.models import remote_servers

            return _Entry(RemoteEngine(spec, remote_servers.find(os.environ)))
        return _Entry(local_engine(loader.load(spec, report, cancel, available_bytes=self._make_room)))

    def _make_room(self, plan: LoadPlan) -> int:
        """Gives up what is remembered of conversations, then idle models, until there is memory for this plan; nothing
        where all would be in vain. Returns the free bytes.
        """

        def free() -> int:
            return max(0, self._free(plan.cards) - self.unwritten_bytes)

        with self._entries_lock:
            idle = [spec for spec, entry in self._entries.items() if not entry.leases]
            idle.sort(key=lambda spec: spec.name == LAST_TO_GO)
            spare = self.cached_bytes + sum(self._entries[spec].engine.memory_bytes for spec in idle)
            if not free() < plan.need <= free() + spare:
                return free()
            for entry in self._entries.values():
                for prefixes in entry.engine.prefix_caches:
                    prefixes.clear()
            hardware.return_memory()
            while idle and free() < plan.need:
                _log.info("Unloading %s", idle[0].name)
                del self._entries[idle.pop(0)]
                hardware.return_memory()
            return free()


def local_engine(loaded: "LoadedModel") -> "LocalEngine":
    """The engine for a model that was loaded here."""
    if loaded.plan.engine == OPENVINO:
        from parley.engines.openvino.engine import OpenVinoEngine

        return OpenVinoEngine(loaded)
    from parley.engines.transformers.engine import TransformersEngine

    return TransformersEngine(loaded)
