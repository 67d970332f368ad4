"""The fast engine on x86 CPUs: the local one, but OpenVINO computes its forward passes, from an exported int8 model.

So it chooses tokens as transformers does, by every strategy that looks at nothing but logits.
`paired` gives the rest to the torch model. It needs openvino.
"""

import functools
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from parley import strategies, streaming
from parley.engines.loading import Loaded
from parley.engines.local import LocalEngine
from parley.engines.paged_beams import BeamReader
from parley.engines.pages import THREADS, PagedModel, PagedPrefixes, Pages, Reader
from parley.engines.prompt import Prompt
from parley.settings import Settings
from parley.strategies.tokens import tokens

RUNS = (  # they look at nothing but logits
    *("tokens", "watermark", "prompt_lookup", "assisted", "universal_assisted"),
    *("live_beams", "diverse_beams", "constrained_beams"),
)


def refusal(settings: Settings) -> str:
    """What the torch model has to do instead, as the name of the strategy or of the setting; empty for nothing."""
    row = strategies.find(settings.strategy)
    if row.runs not in RUNS:
        return row.name
    return "guidance_scale" if "guidance_scale" in row.uses and settings.guidance_scale != 1 else ""


class OpenVinoEngine(LocalEngine):
    """Answers with one exported model, only for settings without a `refusal`. `loaded` is the torch model of the same
    folder, which computes nothing here: tokenizer, template and `generate` are its own.
    """

    _computes = "OpenVINO int8"
    _rounds = True

    def __init__(self, loaded: Loaded, folder: Path, turn_seconds: float = 300.0) -> None:
        super().__init__(loaded, turn_seconds)
        self._model = PagedModel(folder)
        self._prefixes = PagedPrefixes(self._model, self._most_remembered)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """What follows each of `ids`, shape (1, tokens); (1, tokens, vocabulary). Nothing is remembered."""
        brake = streaming.Brake(threading.Event(), self._seconds)
        return Reader(self._model, self.loaded.model, Pages(self._model), brake)(ids[0].tolist(), 0).logits

    @torch.inference_mode()
    def distance(self) -> float:
        """How far its logits lie from those of the torch model, as a share, after a text that fills every window."""
        config = self.loaded.model.config.get_text_config()
        length = min(self.loaded.context, (getattr(config, "sliding_window", None) or 0) + 64)
        ids = torch.arange(length)[None] % config.vocab_size
        theirs = self.loaded.model(ids, use_cache=False, logits_to_keep=8).logits.float()
        return float((self.logits(ids)[:, -8:] - theirs).norm() / theirs.norm())

    def _generate(self, prompt: Prompt, arguments: dict[str, Any], brake: streaming.Brake) -> None:
        pages = arguments.pop("pages", None) or Pages(self._model)  # without a session none are remembered
        kind = BeamReader if "on_beams" in arguments else Reader
        reader = kind(self._model, self.loaded.model, pages, brake)
        run = arguments.get("custom_generate", tokens)
        if run is tokens:
            marked = arguments["generation_config"].watermarking_config  # some marks remember what they were asked
            arguments["lookup"] = marked is None
        if streamer := arguments.pop("streamer", None):
            arguments |= {"on_token": streamer.take, "on_guess": streamer.count_guess}

        @functools.wraps(run)
        def loop(_: PreTrainedModel, *given: Any, **named: Any) -> torch.Tensor:
            return run(reader, *given, **named | {"past_key_values": pages})

        if "draft" not in arguments:  # little is left to torch, and its second thread waits on a core that is needed
            torch.set_num_threads(1)
        try:
            super()._generate(prompt, arguments | {"custom_generate": loop}, brake)
        finally:
            torch.set_num_threads(THREADS)
