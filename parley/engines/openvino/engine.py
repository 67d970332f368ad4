"""The engine for a model on a CPU: the local one, over a graph that OpenVINO computes."""

from typing import Any

import torch

from parley.engines.loader import Loaded
from parley.engines.local_engine import LocalEngine
from parley.engines.openvino.loader import ExitGraph
from parley.engines.openvino.model_adapter import ModelAdapter
from parley.engines.openvino.session_cache import TURNS, SessionCache
from parley.generation.prompt import Prompt
from parley.generation.streaming import AnswerStreamer, Brake, raise_if_stopped


class OpenVinoEngine(LocalEngine):
    """Answers with one graph; one turn generates at a time, others wait."""

    def __init__(self, loaded: Loaded, turn_seconds: float = 300.0) -> None:
        super().__init__(loaded, turn_seconds)
        self._prefixes = SessionCache(loaded.model.decoder)
        self._exit = ExitGraph(loaded.folder, loaded.model, loaded.fit.numbers, loaded.fit.threads)

    @property
    def bytes(self) -> int:
        """What its graphs take, and the pool of keys and values, of which a part may be `untouched`."""
        pool = self.loaded.model.decoder.pool
        return super().bytes + pool.num_blocks * pool.bytes_per_block

    @property
    def untouched(self) -> int:
        """What of the pool was never written."""
        pool = self.loaded.model.decoder.pool
        return (pool.num_blocks - pool.num_touched) * pool.bytes_per_block

    @property
    def _computes(self) -> str:
        return f"OpenVINO {self.loaded.fit.numbers}"

    def _generate(self, prompt: Prompt, arguments: dict[str, Any], brake: Brake, streamer: AnswerStreamer) -> None:
        config = arguments["generation_config"]
        with TURNS.running():
            if (layer := config.assistant_early_exit) is not None:
                self._prepare_exit(layer, streamer)
            threads = torch.get_num_threads()
            if isinstance(arguments.get("draft", self.loaded.model), ModelAdapter):
                torch.set_num_threads(1)  # little is left to torch, and its second thread waits on a needed core
            try:
                super()._generate(prompt, arguments, brake, streamer)
            finally:
                torch.set_num_threads(threads)

    def _prepare_exit(self, layer: int, streamer: AnswerStreamer) -> None:
        def progress(share: float) -> None:
            raise_if_stopped()
            streamer.tell(f"Preparing the first {layer} layers: {share:.0%}")

        self._exit.prepare(layer, progress)
