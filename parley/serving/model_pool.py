"""The pool of loaded models. Turns lease them; the least recently used model is unloaded when memory is short."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parley import config
from parley.engines import loader
from parley.engines.base import Engine
from parley.errors import ModelUnavailable
from parley.events import HEARTBEAT, Report
from parley.models import hardware, hub
from parley.models.load_plan import LoadPlan
from parley.models.precision import OPENVINO
from parley.models.spec import ModelSpec

if TYPE_CHECKING:  # importing torch takes seconds; the page must be served before that
    from parley.engines.local_engine import LocalEngine
    from parley.generation.loaded_model import LoadedModel


def _parrot(_: ModelSpec) -> Engine:
    from parley.engines.parrot import Parrot

    return Parrot(config.MAX_TURN_SECONDS.read())


def _remote(spec: ModelSpec) -> Engine:
    from parley.engines.remote.engine import RemoteEngine
    from parley.models import remote_servers

    return RemoteEngine(spec, remote_servers.find(os.environ), config.MAX_TURN_SECONDS.read())


# What makes the engine of a model that has no weights here, by `ModelSpec.engine`. A row may be added.
ENGINES: dict[str, Callable[[ModelSpec], Engine]] = {"parrot": _parrot, "remote": _remote}
LAST_UNLOADED = "budgie"  # it is small, and works if the Hub cannot be reached
_log = logging.getLogger(__name__)


@dataclass
class _Entry:
    engine: Engine
    leases: int = 0

    @property
    def cached_bytes(self) -> int:
        """The memory of the engine's prefix caches, which is not part of the model's memory."""
        return sum(cache.bytes for cache in self.engine.prefix_caches)


class ModelPool:
    """Leases engines. One model is loaded at a time, and loaded models can answer meanwhile.

    `free` takes a number of GPUs and returns the free bytes on them, or in main memory for 0. A leased model is never
    unloaded.
    """

    def __init__(self, free: Callable[[int], int] = hardware.free_memory) -> None:
        self._free = free
        self._entries: dict[ModelSpec, _Entry] = {}  # in order of last use, the least recently used first
        self._entries_lock = threading.Lock()  # held briefly
        self._loading = threading.Lock()  # held while a model loads
        self._status = ""
        self._refused: dict[ModelSpec, ModelUnavailable] = {}

    @property
    def loaded(self) -> dict[str, int]:
        """The models in memory and their bytes, the least recently used first."""
        return {spec.name: entry.engine.memory_bytes for spec, entry in tuple(self._entries.items())}

    @property
    def placed_bytes(self) -> int:
        """The memory of the models that a worker of ZeroGPU moves to its GPU."""
        entries = tuple(self._entries.items())
        return sum(entry.engine.memory_bytes for spec, entry in entries if not spec.cpu_on_zerogpu)

    @property
    def cached_bytes(self) -> int:
        """The memory of all prefix caches, which is not part of the models' memory."""
        return sum(entry.cached_bytes for entry in tuple(self._entries.values()))

    @property
    def unwritten_bytes(self) -> int:
        """The memory that engines have reserved but never written. The system still counts it as free."""
        return sum(entry.engine.unwritten_bytes for entry in tuple(self._entries.values()))

    def available_bytes(self, plan: LoadPlan) -> int:
        """The bytes that would be free for this plan if all models and prefix caches were unloaded."""
        in_use = sum(self.loaded.values()) - self.unwritten_bytes + self.cached_bytes
        return self._free(plan.cards) + in_use

    def max_running(self, spec: ModelSpec) -> int:
        """How many turns of this model may run at the same time; one until it is loaded."""
        entry = self._entries.get(spec)
        return entry.engine.max_running if entry else 1

    def tokens_per_second(self, spec: ModelSpec) -> float:
        """The tokens that all turns of this model in this process generate together, lately."""
        entry = self._entries.get(spec)
        return entry.engine.tokens_per_second if entry else 0.0

    def fingerprint(self, name: str) -> str:
        """Of what would answer with the model of this name; empty where it is not loaded. See `Engine.fingerprint`."""
        entries = tuple(self._entries.items())
        return next((entry.engine.fingerprint for spec, entry in entries if spec.name == name), "")

    def at_hand(self, spec: ModelSpec) -> Engine | None:
        """The engine of this model if it is loaded, for what needs no turn of it."""
        entry = self._entries.get(spec)
        return entry.engine if entry else None

    @contextmanager
    def lease(
        self, spec: ModelSpec, report: Report, cancel: threading.Event, source: hub.Source | None = None
    ) -> Iterator[Engine]:
        """The engine of this model during a `with` block; loads the model first if needed.

        `source` says where its files are; without it the Hub is asked. Raises `ModelUnavailable`, and
        `hub.LoadingStopped` if `cancel` is set before the model is loaded.
        """
        entry = self._take(spec) or self._load(spec, report, cancel, source)
        try:
            yield entry.engine
        finally:
            with self._entries_lock:
                entry.leases -= 1

    def preload(self, specs: Iterable[ModelSpec]) -> None:
        """Loads these models without unloading one for another. `check` raises the errors of this.

        What is whole on the disk is loaded as it is there, so that a start asks no server and downloads no update.
        """
        with ExitStack() as leases:
            for spec in specs:
                source = hub.on_disk(spec) if spec.engine == "local" else None
                try:
                    leases.enter_context(self.lease(spec, _log.debug, threading.Event(), source))
                except ModelUnavailable as error:
                    _log.warning("%s", error)
                    self._refused[spec] = error

    def check(self, spec: ModelSpec) -> None:
        """Raises the error of `preload` for this model, if there was one."""
        if spec in self._refused:
            raise self._refused[spec]

    def before_fork(self) -> None:
        """Waits until no thread changes the list of engines, so that a forked process gets a sound one."""
        self._entries_lock.acquire()

    def after_fork(self, in_child: bool) -> None:
        """Ends what `before_fork` began. A child gets a free lock: what loads goes on in the parent alone."""
        self._entries_lock.release()
        if in_child:
            self._loading = threading.Lock()

    def _take(self, spec: ModelSpec) -> _Entry | None:
        with self._entries_lock:
            entry = self._entries.pop(spec, None)
            if entry is not None:
                self._entries[spec] = entry  # last in the order of use
                entry.leases += 1
            return entry

    def _load(self, spec: ModelSpec, report: Report, cancel: threading.Event, source: hub.Source | None) -> _Entry:
        def report_to_all(sentence: str) -> None:
            self._status = sentence  # for the turns that wait
            report(sentence)

        while not self._loading.acquire(timeout=HEARTBEAT):
            if cancel.is_set():
                raise hub.stopped(spec)
            report(self._status)
        try:
            if entry := self._take(spec):  # another turn has loaded it meanwhile
                return entry
            entry = self._new_entry(spec, report_to_all, cancel, source)
            with self._entries_lock:
                self._entries[spec] = entry
                entry.leases += 1
            return entry
        finally:
            self._loading.release()

    def _new_entry(
        self, spec: ModelSpec, report: Report, cancel: threading.Event, source: hub.Source | None
    ) -> _Entry:
        if new_engine := ENGINES.get(spec.engine):
            return _Entry(new_engine(spec))
        loaded = loader.load(spec, report, cancel, available_bytes=self._make_room, source=source)
        return _Entry(local_engine(loaded))

    def _make_room(self, plan: LoadPlan) -> int:
        """Frees memory for this plan: clears the prefix caches, then unloads idle models until the plan fits.

        Frees nothing if the plan would not fit even then. Returns the free bytes.
        """

        def free() -> int:
            return max(0, self._free(plan.cards) - self.unwritten_bytes)

        with self._entries_lock:
            idle = [spec for spec, entry in self._entries.items() if not entry.leases]
            idle.sort(key=lambda spec: spec.name == LAST_UNLOADED)
            reclaimable = self.cached_bytes + sum(self._entries[spec].engine.memory_bytes for spec in idle)
            if not free() < plan.need <= free() + reclaimable:
                return free()
            for entry in self._entries.values():
                for cache in entry.engine.prefix_caches:
                    cache.clear()
            hardware.return_memory()
            while idle and free() < plan.need:
                _log.info("Unloading %s", idle[0].name)
                del self._entries[idle.pop(0)]
                hardware.return_memory()
            return free()


def local_engine(loaded: "LoadedModel") -> "LocalEngine":
    """The engine for a loaded model."""
    seconds = config.MAX_TURN_SECONDS.read()
    if loaded.plan.engine == OPENVINO:
        from parley.engines.openvino.engine import OpenVinoEngine

        return OpenVinoEngine(loaded, seconds)
    from parley.engines.transformers.engine import TransformersEngine

    return TransformersEngine(loaded, seconds)
