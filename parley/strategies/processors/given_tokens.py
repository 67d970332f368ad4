"""Begins an answer with given tokens, after which the strategy goes on as if it had chosen them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from transformers import LogitsProcessor


@runtime_checkable
class ForcesTokens(Protocol):
    """A processor that knows tokens before they are chosen, because it leaves no others."""

    def after(self, input_ids: torch.Tensor) -> list[int]:
        """The tokens that have to follow this text, shape (1, tokens)."""
        ...


class GivenTokens(LogitsProcessor):
    """Leaves one token at each of the first places of an answer. A strategy that draws still draws there.

    So the draws behind the given tokens are those of the answer that they come from.
    """

    def __init__(self, ids: Sequence[int], prompt_length: int) -> None:
        self._ids, self._prompt_length = tuple(ids), prompt_length

    def after(self, input_ids: torch.Tensor) -> list[int]:
        """The given tokens that follow prompt and answer so far, shape (1, tokens)."""
        return list(self._ids[max(0, input_ids.shape[1] - self._prompt_length) :])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of shape (sequences, vocabulary): at a given place minus infinity for all other tokens.

        The given token keeps its score, which a beam search adds up, unless it was removed.
        """
        place = input_ids.shape[1] - self._prompt_length
        if not 0 <= place < len(self._ids):
            return scores
        token = self._ids[place]
        only = torch.full_like(scores, -torch.inf)
        only[:, token] = scores[:, token].nan_to_num(neginf=0.0)
        return only

    def __repr__(self) -> str:
        return f"GivenTokens({list(self._ids)}, prompt_length={self._prompt_length})"
