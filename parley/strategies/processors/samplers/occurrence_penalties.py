"""The presence and the frequency penalty of the OpenAI API: tokens that the answer has already are made less likely.

https://platform.openai.com/docs/advanced-usage#frequency-and-presence-penalties. As there and in vLLM only the answer
counts. llama.cpp has the same formula (`llama_sampler_penalties`), and counts the last tokens of the prompt too.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class _Penalty(LogitsProcessor):
    """`spared` are the tokens that are never penalised: those that end a turn."""

    def __init__(self, penalty: float, prompt_length: int, spared: Sequence[int] = ()) -> None:
        self._penalty, self._prompt_length, self._spared = penalty, prompt_length, list(spared)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._penalty}, {self._prompt_length}, {self._spared})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (sequences, tokens); `scores`: shape (sequences, vocabulary)."""
        answer = input_ids[:, self._prompt_length :]
        counts = torch.zeros_like(scores).scatter_add(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        counts[:, self._spared] = 0.0
        return scores - self._penalty * self._weights(counts)

    def _weights(self, counts: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class PresencePenalty(_Penalty):
    """Takes `penalty` from the logit of each token that the answer has."""

    def _weights(self, counts: torch.Tensor) -> torch.Tensor:
        return (counts > 0).to(counts.dtype)


class FrequencyPenalty(_Penalty):
    """Takes `penalty` from the logit of a token as often as the answer has it."""

    def _weights(self, counts: torch.Tensor) -> torch.Tensor:
        return counts
