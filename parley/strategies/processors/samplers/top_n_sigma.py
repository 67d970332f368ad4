"""Top-n-sigma: keeps the tokens near the highest logit, measured in standard deviations (Tang et al., 2024).

https://arxiv.org/abs/2411.07641. Transformers does not have it.
"""

import math

import torch
from transformers import LogitsProcessor


class TopNSigma(LogitsProcessor):
    """Sets logits more than `n` standard deviations below the highest one to minus infinity."""

    def __init__(self, n: float) -> None:
        self._n = n

    def __repr__(self) -> str:
        return f"TopNSigma({self._n})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (sequences, vocabulary). The standard deviation is that of the finite scores."""
        finite = scores.isfinite()
        count = finite.sum(-1, keepdim=True)
        mean = scores.masked_fill(~finite, 0.0).sum(-1, keepdim=True) / count
        deviation = ((scores - mean).masked_fill(~finite, 0.0).square().sum(-1, keepdim=True) / count).sqrt()
        return scores.masked_fill(scores < scores.amax(-1, keepdim=True) - self._n * deviation, -math.inf)
