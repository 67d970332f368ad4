"""Mirostat 2: keeps the surprise of the text at a target (Basu et al., 2020).

https://arxiv.org/abs/2007.14966, `llama_sampler_mirostat_v2` of llama.cpp; koboldcpp has the same.
"""

import math

import torch
from transformers import LogitsProcessor


class Mirostat(LogitsProcessor):
    """Removes tokens whose surprise, in bits, is above a limit. The limit follows the surprise of what was chosen.

    It begins at 2 * `tau`. After a token it falls by `eta` * (its surprise - `tau`). It has to be called once for each
    token of one sequence, in order.
    """

    def __init__(self, tau: float, eta: float) -> None:
        self._tau, self._eta = tau, eta
        self._limit, self._length = 2 * tau, 0
        self._probabilities: torch.Tensor | None = None  # of the last call, after the cut

    def __repr__(self) -> str:
        return f"Mirostat({self._tau}, {self._eta})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (1, tokens); `scores`: shape (1, vocabulary)."""
        if self._probabilities is not None and input_ids.shape[1] == self._length + 1:
            chosen = float(self._probabilities[input_ids[0, -1]])
            if chosen > 0:  # a token that was given may have been removed
                self._limit -= self._eta * (-math.log2(chosen) - self._tau)
        self._length = input_ids.shape[1]
        logs = scores.log_softmax(-1)
        removed = -logs / math.log(2) > self._limit
        removed &= scores < scores.amax(-1, keepdim=True)  # the likeliest stays
        kept = scores.masked_fill(removed, -torch.inf)
        self._probabilities = kept.softmax(-1)[0]
        return kept
