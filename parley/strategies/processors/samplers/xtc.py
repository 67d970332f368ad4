"""XTC ("exclude top choices"): the likeliest tokens are removed where less likely ones do as well (p-e-w, 2024).

https://github.com/oobabooga/text-generation-webui/pull/6335. The same as `llama_sampler_xtc` of llama.cpp and in
koboldcpp.
"""

import random

import torch
from transformers import LogitsProcessor


class Xtc(LogitsProcessor):
    """With this `probability`, removes the tokens that have the probability `threshold` or more, but not the last one.

    Whether it does so at a place depends on the seed and the place alone, so that draft tokens change nothing.
    """

    def __init__(self, probability: float, threshold: float, seed: int) -> None:
        self._probability, self._threshold, self._seed = probability, threshold, seed

    def __repr__(self) -> str:
        return f"Xtc({self._probability}, {self._threshold}, seed={self._seed})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (sequences, tokens); `scores`: shape (sequences, vocabulary)."""
        if random.Random(f"{self._seed} {input_ids.shape[1]}").random() >= self._probability:
            return scores
        probabilities = scores.softmax(-1)
        above = probabilities >= self._threshold
        least = probabilities.masked_fill(~above, torch.inf).argmin(-1, keepdim=True)
        removed = above.scatter(-1, least, False) & (above.sum(-1, keepdim=True) > 1)
        return scores.masked_fill(removed, -torch.inf)
