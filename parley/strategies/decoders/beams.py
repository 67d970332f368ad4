"""What the beam searches share: hypotheses, and the store of the best finished ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import Cache, GenerationConfig

from parley.errors import BadSetting
from parley.strategies.decoders.causal_lm import KVCache


@dataclass(frozen=True)
class Hypothesis:
    """One candidate for the answer."""

    ids: torch.Tensor  # shape (tokens,): the answer without the prompt
    score: float  # log probability in nats, divided by the length to the power of the length penalty
    finished: bool
    group: int = 0  # of a diverse beam search


OnBeams = Callable[[Sequence[Hypothesis]], None]  # takes all hypotheses of a step, best first


class BeamHypotheses:
    """The best finished hypotheses of a beam search, at most `num_beams`."""

    def __init__(self, num_beams: int, length_penalty: float) -> None:
        self.hypotheses: list[Hypothesis] = []  # in ascending order; of two equal scores the newer one comes later
        self._num_beams = num_beams
        self._length_penalty = length_penalty

    def score(self, log_probability: float, length: int) -> float:
        """The score of an answer of `length` tokens."""
        return log_probability / length**self._length_penalty

    def add(self, ids: torch.Tensor, score: float, *, finished: bool = True) -> None:
        """Adds an answer if it is one of the best. One that is not `finished` is cut by the end of the search."""
        if len(self.hypotheses) == self._num_beams:
            if score <= self.hypotheses[0].score:
                return
            del self.hypotheses[0]
        index = next((i for i, h in enumerate(self.hypotheses) if h.score > score), len(self.hypotheses))
        self.hypotheses.insert(index, Hypothesis(ids, score, finished))

    def is_done(self, attainable: float) -> bool:
        """Whether there are `num_beams` of them, all with at least the score that is still attainable."""
        return len(self.hypotheses) == self._num_beams and self.hypotheses[0].score >= attainable


def end_tokens(config: GenerationConfig) -> set[int]:
    """The tokens that end an answer, from a config that `generate` has prepared; may be empty."""
    return set() if config._eos_token_tensor is None else set(config._eos_token_tensor.tolist())


def kv_cache(inputs: Mapping[str, Any]) -> KVCache:
    """The KV cache among the model's inputs. Raises `BadSetting` for a state that cannot be reordered."""
    found = inputs.get("past_key_values", inputs.get("cache_params"))
    if not isinstance(found, Cache):
        raise BadSetting("The state of this model cannot be moved from beam to beam. Choose another strategy.")
    return cast(KVCache, found)


def sorted_hypotheses(finished: Sequence[Hypothesis], running: Sequence[Hypothesis]) -> list[Hypothesis]:
    """All hypotheses, best first; of two equal scores the finished one comes first."""
    return sorted([*finished, *running], key=lambda h: (-h.score, not h.finished))


def active_beams(scores: torch.Tensor) -> torch.Tensor:
    """The indices of the real beams in `scores`, shape (beams,). The first steps have placeholders with -1e9."""
    return (scores > -1e8).nonzero()[:, 0]
