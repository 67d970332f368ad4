"""What the beam searches share: hypotheses, and the best of those that have finished."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import Cache, GenerationConfig

from parley.errors import BadSetting
from parley.strategies.decoders.causal_lm import KVCache


@dataclass(frozen=True)
class Hypothesis:
    """One answer that a beam search considers."""

    ids: torch.Tensor  # shape (tokens,): the answer without the prompt
    score: float  # log probability in nats, divided by the length to the power of the length penalty
    finished: bool


OnBeams = Callable[[Sequence[Hypothesis]], None]  # takes all hypotheses of a step, the best first


class Finished:
    """The best finished hypotheses of a beam search, at most `most` of them."""

    def __init__(self, most: int, length_penalty: float) -> None:
        self.hypotheses: list[Hypothesis] = []  # the worst first; of equals the newer one is the better
        self._most = most
        self._penalty = length_penalty

    def score(self, log_probability: float, length: int) -> float:
        """The score of an answer of so many tokens."""
        return log_probability / length**self._penalty

    def add(self, ids: torch.Tensor, score: float) -> None:
        """Keeps an answer if it is one of the best."""
        if len(self.hypotheses) == self._most:
            if score <= self.hypotheses[0].score:
                return
            del self.hypotheses[0]
        place = next((i for i, h in enumerate(self.hypotheses) if h.score > score), len(self.hypotheses))
        self.hypotheses.insert(place, Hypothesis(ids, score, finished=True))

    def full_of_better_than(self, attainable: float) -> bool:
        """Whether there are enough, and all at least as good as what can still be attained."""
        return len(self.hypotheses) == self._most and self.hypotheses[0].score >= attainable


def end_tokens(config: GenerationConfig) -> set[int]:
    """The tokens that end an answer, of a configuration that `generate` has prepared; none for one that never ends."""
    return set() if config._eos_token_tensor is None else set(config._eos_token_tensor.tolist())


def cache(inputs: Mapping[str, Any]) -> KVCache:
    """What the model remembers, of its inputs; raises `BadSetting` for one whose memory has no rows to move."""
    found = inputs.get("past_key_values", inputs.get("cache_params"))
    if not isinstance(found, Cache):
        raise BadSetting("What this model remembers cannot be moved from beam to beam. Choose another strategy.")
    return cast(KVCache, found)


def ranked(finished: Sequence[Hypothesis], running: Sequence[Hypothesis]) -> list[Hypothesis]:
    """All of them, the best first; of equals the finished one."""
    return sorted([*finished, *running], key=lambda h: (-h.score, not h.finished))


def alive(scores: torch.Tensor) -> torch.Tensor:
    """Which rows, of shape (rows,), have a beam: in the first steps some only hold a place, with a score of -1e9."""
    return (scores > -1e8).nonzero()[:, 0]
