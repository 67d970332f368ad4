"""The engine for a model on the CPU, which runs as an OpenVINO graph."""

from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch

from parley.config import MAX_TURN_SECONDS
from parley.engines import fork_gate
from parley.engines.checkpoint import Checkpoint
from parley.engines.local_engine import LocalEngine
from parley.engines.openvino.loader import ExitGraph, Progress, precision_of
from parley.engines.openvino.model_adapter import ModelAdapter
from parley.engines.openvino.paged_kv import BLOCK_SIZE
from parley.engines.openvino.prefix_cache import PagedPrefixCache, SharedTables
from parley.engines.openvino.turns import TURNS
from parley.events import STATUSES
from parley.generation.loaded_model import LoadedModel
from parley.generation.prompt import Prompt
from parley.generation.streaming import AnswerStreamer, StopSignal, raise_if_stopped

MAX_RUNNING = 32  # turns; a pass has 64 rows at most, and prompts need some of them
MIN_TOKENS = 256  # of keys and values for each turn; those that need more than there is take turns
THREADS = torch.get_num_threads()  # of an operation of torch in a new thread


class OpenVinoEngine(LocalEngine):
    """Answers with one graph. The turns that run at the same time share its passes."""

    def __init__(self, loaded: LoadedModel, turn_seconds: float = MAX_TURN_SECONDS.default) -> None:
        assert isinstance(loaded.model, ModelAdapter)
        self._model = loaded.model
        self._sessions = PagedPrefixCache(self._model.scheduler)
        super().__init__(loaded, self._sessions, turn_seconds)
        pool = self._model.decoder.pool
        self.max_running = max(1, min(MAX_RUNNING, (pool.num_blocks - 1) * BLOCK_SIZE // MIN_TOKENS))
        checkpoint = Checkpoint(loaded.spec, loaded.folder)
        self._exit = ExitGraph(checkpoint, self._model, precision_of(loaded.plan), loaded.plan.threads)

    @property
    def memory_bytes(self) -> int:
        """The memory of the graphs and of the whole KV pool, its unwritten part included."""
        pool = self._model.decoder.pool
        return super().memory_bytes + pool.num_blocks * pool.bytes_per_block

    @property
    def unwritten_bytes(self) -> int:
        """The part of the KV pool that was never written."""
        pool = self._model.decoder.pool
        return (pool.num_blocks - pool.num_touched) * pool.bytes_per_block

    def shared_prompts(self, session: str, needs_states: bool = False) -> SharedTables:
        """See `Engine.shared_prompts`."""
        return self._sessions.shared(session, needs_states)

    @property
    def _library(self) -> str:
        return "OpenVINO"

    def _running(self) -> AbstractContextManager[Any]:
        return TURNS.running()  # before the turn takes its prefix, so that no thread reads the rest of it meanwhile

    def _generate(
        self, prompt: Prompt, arguments: dict[str, Any], signal: StopSignal, streamer: AnswerStreamer | None = None
    ) -> None:
        layer = arguments["generation_config"].assistant_early_exit
        with ExitStack() as stack:
            if layer is not None and streamer:
                stack.enter_context(self._exit.lease(layer, self._progress(layer, streamer)))
            # These hold for this thread, which ends with the turn, and for threads that begin later.
            in_graphs = isinstance(arguments.get("draft", self._model), ModelAdapter)
            torch.set_num_threads(1 if in_graphs else THREADS)  # a second thread would busy-wait on a core
            stack.callback(torch.set_num_threads, THREADS)
            stack.enter_context(fork_gate.closed())
            super()._generate(prompt, arguments, signal)

    @staticmethod
    def _progress(layer: int, streamer: AnswerStreamer) -> Progress:
        def progress(share: float) -> None:
            raise_if_stopped()
            streamer.tell(STATUSES["early"].format(layers=layer, share=f"{share:.0%}"))

        return progress
