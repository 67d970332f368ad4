"""The engine for a model of transformers, on a GPU or on the CPU."""

import torch

from parley.engines.local_engine import LocalEngine
from parley.engines.transformers.abort_hooks import install_abort_hooks
from parley.engines.transformers.early_exit import exit_in_a_copy
from parley.engines.transformers.reread import keep_one_cache
from parley.engines.transformers.scheduler import schedule
from parley.generation.loaded_model import LoadedModel
from parley.generation.prefix_cache import PrefixCache
from parley.models import hardware

CACHE_DIVISOR = 4  # the KV caches of sessions may use the free memory divided by this


class TransformersEngine(LocalEngine):
    """Answers with a model that PyTorch runs."""

    def __init__(self, loaded: LoadedModel, turn_seconds: float = 300.0) -> None:
        self._sessions = PrefixCache(loaded.model, self._max_cache_bytes)
        super().__init__(loaded, self._sessions, turn_seconds)
        install_abort_hooks(loaded.model)
        keep_one_cache(loaded.model)
        self._scheduler = schedule(loaded.model)
        exit_in_a_copy(loaded.model)
        self.max_running = 8

    @property
    def _library(self) -> str:
        return "PyTorch"

    def _max_cache_bytes(self) -> int:
        """Bytes for the KV caches of all sessions: a share of the memory that would be free without these caches."""
        gpu = self.loaded.model.device.type == "cuda"
        free = torch.cuda.mem_get_info()[0] if gpu else hardware.free_memory()
        return (free + self._sessions.bytes) // CACHE_DIVISOR

    def _generate(self, *args, **kwargs):
        with self._scheduler.turn():
            super()._generate(*args, **kwargs)
