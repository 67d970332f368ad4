"""Chooses the next token from one row of logits: the same token as `generate`, in a fraction of the time.

With equal seeds the tokens are those of `generate`, which draws by `torch.multinomial`. That takes the token with the
largest quotient of probability and exponential noise. The noise is -log1p(-u), with one uniform float64 u for each
entry of the vocabulary.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from parley.strategies.processors.samplers.xtc import Xtc

# Processors that read only the probabilities of the tokens that top-k kept. They give the same result for these alone.
KEPT_ONLY = (TopPLogitsWarper, MinPLogitsWarper, TypicalLogitsWarper, EpsilonLogitsWarper, EtaLogitsWarper, Xtc)
MAX_KEPT = 1024  # tokens; for more, `torch.multinomial` is as fast
SPARE = 16  # more candidates than top-k keeps, because it keeps all that are equal to the last one

BLOCK = 64  # entries whose maximum is taken first
_OFFSETS = torch.arange(BLOCK)

# Where uniform numbers are drawn. The last one used is taken first, because it is still in the processor's cache.
# There are as many as threads have drawn at the same time.
_scratch: list[torch.Tensor] = []

DRAWS = (torch.multinomial, torch.Tensor.multinomial, torch.rand, torch.rand_like)  # all that `generate` uses


class Sampler:
    """Greedy search or sampling, after `processors`.

    Temperature, top-k and what follows them see only the tokens with the highest logits, which are all that top-k can
    keep. Otherwise each of them would read the whole vocabulary, and top-p would sort it.
    """

    def __init__(
        self, processors: LogitsProcessorList, do_sample: bool, generator: torch.Generator | None = None
    ) -> None:
        top_k = next((i for i, each in enumerate(processors) if isinstance(each, TopKLogitsWarper)), len(processors))
        rest = processors[top_k + 1 :]
        if not all(isinstance(each, KEPT_ONLY) for each in rest):
            top_k, rest = len(processors), []
        begin = top_k - any(isinstance(each, TemperatureLogitsWarper) for each in processors[top_k - 1 : top_k])
        self._before = processors[:begin]
        self._cut = processors[begin : top_k + 1]  # temperature and top-k
        self._after = rest
        self._top_k = next((each.top_k for each in processors[top_k : top_k + 1]), None)
        self._temperature = next((each.temperature for each in processors[begin:top_k]), 1.0)
        self._do_sample, self._generator = do_sample, generator

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> int:
        """The token that follows `input_ids`, shape (1, tokens). `logits` has shape (1, vocabulary)."""
        scores = _processed(self._before, input_ids, logits)
        if not self._do_sample:
            scores = _processed(self._cut, input_ids, scores)[0]
            # NumPy finds the first of the highest scores too, in a tenth of the time.
            return int(scores.numpy().argmax() if scores.device.type == "cpu" else scores.argmax())
        kept = self._candidates(scores) or self._kept(_processed(self._cut, input_ids, scores))
        if kept is None:
            scores = _processed([*self._cut, *self._after], input_ids, scores)
            return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))
        tokens, kept_scores = kept
        probabilities = _processed(self._after, input_ids, kept_scores).softmax(-1)[0]
        noise = -torch.log1p(-self._uniform(scores.shape[1], tokens)).to(probabilities.dtype)
        return int(tokens[int((probabilities / noise).argmax())])

    def _uniform(self, vocabulary: int, tokens: torch.Tensor) -> torch.Tensor:
        """The numbers of these tokens, shape (kept,), of the uniform ones that are drawn for the whole vocabulary."""
        try:
            drawn = _scratch.pop()
        except IndexError:
            drawn = torch.empty(vocabulary, dtype=torch.float64)
        if drawn.shape[0] != vocabulary:  # of another model
            drawn = torch.empty(vocabulary, dtype=torch.float64)
        taken = drawn.uniform_(generator=self._generator)[tokens]
        _scratch.append(drawn)
        return taken

    def _candidates(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The tokens that top-k keeps, shape (kept,), and their scores after temperature and top-k, shape (1, kept).

        None where there is no top-k, and where more tokens may be equal to the last one than are looked at.
        """
        if scores.device.type != "cpu" or self._top_k is None or self._top_k + SPARE > min(MAX_KEPT, scores.shape[1]):
            return None
        found, tokens = highest(scores[0], self._top_k + SPARE)
        found = found / self._temperature
        values = found.tolist()  # far sooner looked at than a tensor
        least = values[self._top_k - 1]
        if values[0] == -math.inf or not values[-1] < least:
            return None
        kept = sum(each >= least for each in values)
        return tokens[:kept], found[None, :kept]

    @staticmethod
    def _kept(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The tokens that all processors so far have kept, and their scores, shaped like those of `_candidates`.

        None where no token is left, or so many that `torch.multinomial` is as fast.
        """
        if scores.device.type != "cpu":
            return None
        tokens = (scores[0] > -math.inf).nonzero()[:, 0]
        return (tokens, scores[:, tokens]) if 0 < len(tokens) <= MAX_KEPT else None


def _processed(processors: Sequence[LogitsProcessor], input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """As a `LogitsProcessorList`, which looks at the signature of each of them for every token."""
    for each in processors:
        scores = each(input_ids, scores)
    return scores


def highest(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest scores of shape (vocabulary,), and their tokens, both of shape (count,); `topk` gives the same.

    They lie in the blocks with the highest maxima. Which of equal scores come last may differ.
    """
    size = scores.shape[0]
    end = size // BLOCK * BLOCK
    if count * BLOCK > end // 2:
        return scores.topk(count)
    blocks = scores[:end].view(-1, BLOCK)
    at = blocks.amax(-1).topk(count).indices
    near, tokens = blocks[at].flatten(), (at[:, None] * BLOCK + _OFFSETS).flatten()
    if end < size:
        near, tokens = torch.cat([near, scores[end:]]), torch.cat([tokens, torch.arange(end, size)])
    found, at = near.topk(count)
    return found, tokens[at]


class DrawFrom(TorchFunctionMode):
    """While it is entered, the draws of this thread come from `generator`, on the device of the model.

    So several turns can sample by `generate` at the same time, and each gets what `torch.manual_seed` would give it.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides`."""
        given = dict(kwargs or {})
        if func in DRAWS and given.get("generator") is None:
            given["generator"] = self._generator
        return func(*args, **given)
