"""Classifier-free guidance with both sequences in one pass (Ho and Salimans, 2022; Sanchez et al., 2023).

https://arxiv.org/abs/2306.17806. The scores equal those of the processor in transformers, which runs the model twice
for each token.
"""

from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor as Unbatched


class Guidance:
    """Combines the logits of two sequences in one cache: the answer, and the same answer after the negative prompt."""

    def __init__(self, scale: float, negative_ids: torch.Tensor) -> None:
        self._scale = scale
        self.negative_ids = negative_ids  # of the negative prompt, shape (1, tokens)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """The guided scores, shape (1, vocabulary), from the logits of both sequences, shape (2, vocabulary)."""
        scores, negative = logits.log_softmax(-1).split(1)
        return self._scale * (scores - negative) + negative


def split_guidance(processors: LogitsProcessorList, input_ids: torch.Tensor) -> tuple[Guidance | None, Any]:
    """The guidance among the processors that `generate` made, and the other processors."""
    found = [each for each in processors if isinstance(each, Unbatched)]
    if not found:
        return None, processors
    negative_ids: Any = found[0].unconditional_context["input_ids"]
    rest = LogitsProcessorList(each for each in processors if each is not found[0])
    # Without a negative prompt transformers starts the second sequence with the last token of the prompt.
    return Guidance(found[0].guidance_scale, input_ids[:, -1:] if negative_ids is None else negative_ids), rest
