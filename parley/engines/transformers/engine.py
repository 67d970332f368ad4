"""The engine for a model of transformers, on a GPU or on the CPU."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from parley.config import MAX_CACHE_MEGABYTES, MAX_TURN_SECONDS
from parley.engines.local_engine import LocalEngine
from parley.engines.transformers.abort_hooks import install_abort_hooks
from parley.engines.transformers.early_exit import exit_in_a_copy
from parley.engines.transformers.reread import keep_one_cache
from parley.engines.transformers.scheduler import MAX_PADDING, schedule
from parley.engines.transformers.shared_prompts import SharedCaches
from parley.generation.loaded_model import LoadedModel
from parley.generation.prefix_cache import NoPrefixCache, PrefixCache
from parley.models import hardware

CACHE_DIVISOR = 4  # the KV caches of sessions may use the free memory divided by this
RUNNING_DIVISOR = 2  # and those of the turns that run the memory divided by this
MAX_RUNNING = 32  # turns
COLUMNS = 6  # of a comparison, at most
TURN_TOKENS = 4096  # for which a turn needs memory; few conversations are longer


class TransformersEngine(LocalEngine):
    """Answers with a model that PyTorch runs. The turns that run at the same time share its passes where they can."""

    def __init__(self, loaded: LoadedModel, turn_seconds: float = MAX_TURN_SECONDS.default) -> None:
        self._sessions = PrefixCache(loaded.model, self._max_cache_bytes)
        super().__init__(loaded, self._sessions, turn_seconds)
        install_abort_hooks(loaded.model)
        keep_one_cache(loaded.model)
        self.scheduler = schedule(loaded.model)
        exit_in_a_copy(loaded.model)
        self.max_running = self._num_turns_that_fit()

    def shared_prompts(self, session: str, needs_states: bool = False) -> NoPrefixCache:
        """See `Engine.shared_prompts`. Contrastive search reads its prompts itself."""
        if not self._sessions.is_supported:
            return NoPrefixCache()
        return SharedCaches(self.loaded.model, self._sessions.snapshots(session))

    @property
    def _library(self) -> str:
        return "PyTorch"

    def _running(self) -> AbstractContextManager[Any]:
        return self.scheduler.turn()

    def _num_turns_that_fit(self) -> int:
        """How many turns may run: one where the config does not tell the size of keys.

        A worker of ZeroGPU runs one turn, or the columns of one comparison. Its memory is not known before.
        """
        bytes_of_thousand = self.loaded.plan.cache
        if hardware.machine().zerogpu and not self.loaded.spec.cpu_on_zerogpu:
            return COLUMNS if bytes_of_thousand else 1
        if hardware.machine().zerogpu or not bytes_of_thousand:
            return 1
        turn = MAX_PADDING * bytes_of_thousand * min(self.loaded.context, TURN_TOKENS) // 1000
        return max(1, min(MAX_RUNNING, self._free_bytes() // RUNNING_DIVISOR // max(1, turn)))

    def _free_bytes(self) -> int:
        gpu = self.loaded.model.device.type == "cuda"
        return torch.cuda.mem_get_info()[0] if gpu else hardware.free_memory()

    def _max_cache_bytes(self) -> int:
        """Bytes for the KV caches of all sessions: a share of the memory that would be free without these caches."""
        share = (self._free_bytes() + self._sessions.bytes) // CACHE_DIVISOR
        megabytes = MAX_CACHE_MEGABYTES.read()
        return min(share, megabytes * 10**6) if megabytes else share
