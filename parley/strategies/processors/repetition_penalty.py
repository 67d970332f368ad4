"""The repetition penalty of CTRL (Keskar et al., 2019), which spares the tokens that end a turn.

https://arxiv.org/abs/1909.05858. That of transformers also penalises the end tokens of earlier turns, so that answers
do not end.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class RepetitionPenalty(LogitsProcessor):
    """Divides positive logits of tokens that have occurred by `penalty`, and multiplies negative ones with it.

    `spared` are the ids of tokens that are never penalised.
    """

    def __init__(self, penalty: float, spared: Sequence[int]) -> None:
        self._penalty, self._spared = penalty, list(spared)

    def __repr__(self) -> str:
        return f"RepetitionPenalty({self._penalty}, {self._spared})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (sequences, tokens); `scores`: shape (sequences, vocabulary)."""
        seen = scores.gather(1, input_ids)
        penalised = scores.scatter(1, input_ids, torch.where(seen < 0, seen * self._penalty, seen / self._penalty))
        penalised[:, self._spared] = scores[:, self._spared]
        return penalised
