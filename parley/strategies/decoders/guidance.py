"""Classifier-free guidance with both sequences in one pass (Ho and Salimans, 2022; Sanchez et al., 2023).

https://arxiv.org/abs/2306.17806. The scores are those of the library's processor, which runs the model once more.
"""

from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor as Unbatched


class Guidance:
    """The answer's sequence and the one that it is steered away from, side by side in the model's cache."""

    def __init__(self, scale: float, away: torch.Tensor) -> None:
        self._scale = scale
        self.away = away  # the negative prompt's ids, shape (1, tokens)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """The guided scores, shape (1, vocabulary), of the logits of both sequences, shape (2, vocabulary)."""
        scores, away = logits.log_softmax(-1).split(1)
        return self._scale * (scores - away) + away


def take_guidance(processors: LogitsProcessorList, input_ids: torch.Tensor) -> tuple[Guidance | None, Any]:
    """The guidance among the processors that `generate` has made, and the other ones."""
    guided = [each for each in processors if isinstance(each, Unbatched)]
    if not guided:
        return None, processors
    away: Any = guided[0].unconditional_context["input_ids"]
    rest = LogitsProcessorList(each for each in processors if each is not guided[0])
    # Without a negative prompt the library begins with the last token of the prompt.
    return Guidance(guided[0].guidance_scale, input_ids[:, -1:] if away is None else away), rest
