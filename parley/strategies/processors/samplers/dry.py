"""DRY ("don't repeat yourself"): a penalty on tokens that would lengthen a repetition (p-e-w, 2024).

https://github.com/oobabooga/text-generation-webui/pull/5677. The same in llama.cpp (`llama_sampler_dry`, whose
linear search this is) and koboldcpp. The breakers are theirs: line breaks, colons, quotes, asterisks; and control
tokens, so that no repetition reaches into another turn, and the tokens that end an answer are spared.
"""

import functools
import math
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from parley.strategies.token_bytes import own_bytes

BREAKERS = (b"\n", b":", b'"', b"*")
MAX_LOG_PENALTY = 80.0  # the logarithm of a penalty that is still a float32


class Dry(LogitsProcessor):
    """Takes `multiplier` * `base` ** (n - `allowed_length`) from the logit of a token that lengthens a repetition.

    n is the number of tokens at the end of the text that occurred before, and were followed by that token; from
    `allowed_length` on they count. Neither a repetition nor its next token has a breaker in it.
    """

    def __init__(
        self, multiplier: float, base: float, allowed_length: int, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._multiplier, self._base, self._allowed = multiplier, base, allowed_length
        self._breaks = functools.cache(functools.partial(_breaks, tokenizer))

    def __repr__(self) -> str:
        return f"Dry({self._multiplier}, {self._base}, {self._allowed}, tokenizer)"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (sequences, tokens); `scores`: shape (sequences, vocabulary)."""
        scores = scores.clone()
        for row, ids in enumerate(input_ids.tolist()):
            for token, length in self._repeated(ids).items():
                scores[row, token] -= self._penalty(length)
        return scores

    def _penalty(self, length: int) -> float:
        most = MAX_LOG_PENALTY / math.log(self._base) if self._base > 1 else math.inf
        return self._multiplier * self._base ** min(length - self._allowed, most)

    def _repeated(self, ids: Sequence[int]) -> dict[int, int]:
        """The tokens that would go on with a repetition, each with the length of the longest one."""
        found = dict[int, int]()
        limit = next((n for n, id in enumerate(reversed(ids)) if self._breaks(id)), len(ids))
        if limit < self._allowed:
            return found
        for back, length in enumerate(common_lengths(ids[::-1])):
            counted = min(length, limit)
            if back and counted >= self._allowed and not self._breaks(following := ids[len(ids) - back]):
                found[following] = max(counted, found.get(following, 0))
        return found


def _breaks(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Whether a token ends repetitions."""
    return token in tokenizer.added_tokens_decoder or any(each in own_bytes(tokenizer, token) for each in BREAKERS)


def common_lengths(ids: Sequence[int]) -> list[int]:
    """For each place of a text how many tokens from there on are those of its beginning (the Z-algorithm; linear)."""
    lengths, begin, end = [0] * len(ids), 0, 0  # [begin, end): the part that is known to be as the beginning
    for i in range(1, len(ids)):
        n = min(end - i, lengths[i - begin]) if i < end else 0
        while i + n < len(ids) and ids[n] == ids[i + n]:
            n += 1
        lengths[i] = n
        if i + n > end:
            begin, end = i, i + n
    return lengths
