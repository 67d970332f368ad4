"""A number is added to the logits of chosen tokens, as by `logit_bias` in the OpenAI API, llama.cpp, koboldcpp."""

from collections.abc import Mapping

import torch
from transformers import LogitsProcessor


class LogitBias(LogitsProcessor):
    """Adds to the logit of each of these tokens its bias."""

    def __init__(self, biases: Mapping[int, float]) -> None:
        self._biases = dict(biases)

    def __repr__(self) -> str:
        return f"LogitBias({self._biases})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (sequences, vocabulary)."""
        tokens = torch.tensor(list(self._biases), device=scores.device)
        biases = torch.tensor(list(self._biases.values()), dtype=scores.dtype, device=scores.device)
        return scores.index_add(1, tokens, biases.expand(len(scores), -1))
