"""DoLa: prefers tokens whose probability grows between an early layer and the last one (Chuang et al., 2023).

https://arxiv.org/abs/2309.03883. Gives the same tokens as the version in transformers up to 4.49.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers import GenerationConfig

from parley.strategies.decoders.causal_lm import CausalLM, Criteria, PagedCausalLM, Processors

RELATIVE_TOP = 0.1  # tokens less likely than this fraction of the most likely one are excluded


def early_layers(count: int, tied: bool, which: str) -> list[int]:
    """The layers that the last one is compared with: every second one of the lower or the upper half.

    `count` is the number of layers; of more than 40 layers only the first or the last 20 are used. Where the embedding
    is `tied` to the output, the first layers are left out, because they mostly repeat the input.
    """
    half = count // 2 if count <= 40 else 20
    if which == "high":
        return list(range(count - half if count > 40 else half, count, 2))
    start = 0 if not tied else 2 if count > 2 else count - 1
    return [start] if start == count // 2 else list(range(start, half, 2))


@torch.no_grad()
def dola(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: Processors,
    stopping_criteria: Criteria,
    generation_config: GenerationConfig,
    dola_layers: str,
    on_token: Callable[[torch.Tensor], None],
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, shape (1, tokens); returns prompt and answer, shape (1, tokens).

    Each step takes the early layer that differs most from the last one (Jensen-Shannon divergence).
    `dola_layers` is "low" or "high".
    """
    contrast = Contrast(model, dola_layers)
    inputs = {name: value for name, value in inputs.items() if name != "synced_gpus"} | contrast.inputs
    outputs = model._prefill(input_ids, generation_config, inputs)
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        scores = logits_processor(input_ids, contrast(outputs))
        if generation_config.do_sample:
            token = torch.multinomial(scores.softmax(-1), num_samples=1)
        else:
            token = scores.argmax(-1, keepdim=True)
        input_ids = torch.cat([input_ids, token], dim=-1)
        on_token(token.cpu())
        if stopping_criteria(input_ids, None).all():
            return input_ids
        outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs))


class Contrast:
    """Compares the last layer of a model with the early one that differs most from it."""

    def __init__(self, model: CausalLM, dola_layers: str) -> None:
        config = model.config.get_text_config()
        self._model = model
        self._layers = early_layers(config.num_hidden_layers, config.tie_word_embeddings, dola_layers)
        wanted = "early_logits" if isinstance(model, PagedCausalLM) else "output_hidden_states"
        self.inputs = {wanted: True}  # of the forward pass, so that its outputs have what is compared
        self.layer = -1  # the early layer of the last call
        self.early: torch.Tensor | None = None  # its logits, shape (vocabulary,)

    def __call__(self, outputs: Any, position: int = -1) -> torch.Tensor:
        """The scores after the token at `position`, shape (1, vocabulary)."""
        last, early = outputs.logits[:, position].float(), self._early_logits(outputs, position)
        index = _most_divergent(last, early)
        self.layer, self.early = self._layers[index], early[index, 0]
        return _contrast(last, early[index])

    def _early_logits(self, outputs: Any, position: int) -> torch.Tensor:
        """The logits from the token's hidden states before these layers; shape (layers, 1, vocabulary).

        An OpenVINO graph computes them in the same pass as the last logits.
        """
        if isinstance(self._model, PagedCausalLM):
            rows = [self._model.early_layers.index(layer) for layer in self._layers]
            return outputs.early_logits[rows, :, position]
        head = self._model.get_output_embeddings()
        return torch.stack([head(outputs.hidden_states[layer][:, position]).float() for layer in self._layers])


def _most_divergent(last: torch.Tensor, early: torch.Tensor) -> int:
    """The index of the early logits, shape (layers, 1, vocabulary), that diverge most from the last ones."""
    if len(early) == 1:
        return 0
    mean = 0.5 * (last.softmax(-1)[None] + early.softmax(-1))
    divergences = [F.kl_div(logits.log_softmax(-1), mean, reduction="none").mean(-1) for logits in (last[None], early)]
    return int((0.5 * (divergences[0] + divergences[1])).mean(-1).argmax())


def _contrast(last: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
    """The last log probabilities minus the early ones; minus infinity for unlikely tokens. Shapes (1, vocabulary)."""
    last, early = last.log_softmax(-1), early.log_softmax(-1)
    unlikely = last < last.amax(-1, keepdim=True) + math.log(RELATIVE_TOP)
    return (last - early).masked_fill(unlikely, -math.inf)
