"""Top-n-sigma: keeps the tokens near the highest logit, measured in standard deviations (Tang et al., 2024).

https://arxiv.org/abs/2411.07641. Not in transformers.
"""

import math

import torch
from transformers import LogitsProcessor


class TopNSigma(LogitsProcessor):
    """Logits more than `n` standard deviations below the highest become minus infinity."""

    def __init__(self, n: float) -> None:
        self._n = n

    def __repr__(self) -> str:
        return f"TopNSigma({self._n})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (rows, vocabulary); those that are minus infinity already do not count."""
        finite = scores.isfinite()
        count = finite.sum(-1, keepdim=True)
        mean = scores.masked_fill(~finite, 0.0).sum(-1, keepdim=True) / count
        spread = ((scores - mean).masked_fill(~finite, 0.0).square().sum(-1, keepdim=True) / count).sqrt()
        return scores.masked_fill(scores < scores.amax(-1, keepdim=True) - self._n * spread, -math.inf)
