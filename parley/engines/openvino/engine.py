"""The engine for a model on the CPU, which runs as an OpenVINO graph."""

from typing import Any

import torch

from parley.engines import fork_gate
from parley.engines.checkpoint import Checkpoint
from parley.engines.local_engine import LocalEngine
from parley.engines.openvino.loader import ExitGraph, precision_of
from parley.engines.openvino.model_adapter import ModelAdapter
from parley.engines.openvino.prefix_cache import TURNS, PagedPrefixCache
from parley.generation.loaded_model import LoadedModel
from parley.generation.prompt import Prompt
from parley.generation.streaming import AnswerStreamer, StopSignal, raise_if_stopped


class OpenVinoEngine(LocalEngine):
    """Answers with one graph. One turn generates at a time, and the others wait."""

    def __init__(self, loaded: LoadedModel, turn_seconds: float = 300.0) -> None:
        assert isinstance(loaded.model, ModelAdapter)
        self._model = loaded.model
        super().__init__(loaded, PagedPrefixCache(self._model.decoder), turn_seconds)
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

    @property
    def _library(self) -> str:
        return "OpenVINO"

    def _generate(
        self, prompt: Prompt, arguments: dict[str, Any], signal: StopSignal, streamer: AnswerStreamer
    ) -> None:
        config = arguments["generation_config"]
        with TURNS.running():
            if (layer := config.assistant_early_exit) is not None:
                self._prepare_exit(layer, streamer)
            threads = torch.get_num_threads()
            if isinstance(arguments.get("draft", self._model), ModelAdapter):
                torch.set_num_threads(1)  # torch has little to do; its second thread would busy-wait on a core
            try:
                with fork_gate.closed():
                    super()._generate(prompt, arguments, signal, streamer)
            finally:
                torch.set_num_threads(threads)

    def _prepare_exit(self, layer: int, streamer: AnswerStreamer) -> None:
        def progress(share: float) -> None:
            raise_if_stopped()
            streamer.tell(f"Preparing the first {layer} layers: {share:.0%}")

        self._exit.prepare(layer, progress)
