"""Chooses the next token from one row of logits: the same token as `generate`, in a fraction of the time.

With equal seeds the tokens are those of `generate`, which draws by `torch.multinomial`. That takes the token with the
largest quotient of probability and exponential noise. The noise is -log1p(-u), with one uniform float64 u for each
entry of the vocabulary.
"""

import functools
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
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

GROUP_SIZE = 64  # entries of the vocabulary whose maximum is taken first
ROUNDING = 1e-6  # relative; scores that differ by less may be equal after a division

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
        self._do_sample, self._generator, self._uniform = do_sample, generator, _Uniform(generator)
        self._drew_uniform = False  # for the last token

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> int:
        """The token that follows `input_ids`, shape (1, tokens). `logits` has shape (1, vocabulary)."""
        scores = _processed(self._before, input_ids, logits)
        if not self._do_sample:
            scores = _processed(self._cut, input_ids, scores)[0]
            # NumPy finds the first of the highest scores too, in a tenth of the time.
            return int(scores.numpy().argmax() if scores.device.type == "cpu" else scores.argmax())
        kept = self._candidates(scores) or self._kept(_processed(self._cut, input_ids, scores))
        self._drew_uniform = kept is not None
        if kept is None:
            scores = _processed([*self._cut, *self._after], input_ids, scores)
            self._uniform.take_back()
            return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))
        tokens, kept_scores = kept
        probabilities = _processed(self._after, input_ids, kept_scores).softmax(-1)[0].numpy()
        noise = -torch.log1p(-self._uniform.next(scores.shape[1], tokens)).numpy()
        return int(tokens[(probabilities / noise.astype(probabilities.dtype)).argmax()])

    def draw_ahead(self) -> None:
        """Says that another token will be chosen, so that its random numbers can be drawn meanwhile."""
        if self._drew_uniform:  # the last token, so probably the next one too
            self._uniform.draw_ahead()

    def _candidates(self, scores: torch.Tensor) -> tuple[np.ndarray, torch.Tensor] | None:
        """The tokens that top-k keeps, shape (kept,), and their scores after temperature and top-k, shape (1, kept).

        None where there is no top-k, and where it keeps none or too many.
        """
        if scores.device.type != "cpu" or self._top_k is None or self._top_k > min(MAX_KEPT, scores.shape[1]):
            return None
        values = scores[0].numpy()
        tokens = highest(values, self._top_k)
        found = values[tokens] / values.dtype.type(self._temperature)
        if len(tokens) > self._top_k:
            kept = found >= np.partition(found, -self._top_k)[-self._top_k]
            tokens, found = tokens[kept], found[kept]
        return (tokens, torch.from_numpy(found)[None]) if 0 < len(tokens) <= MAX_KEPT else None

    @staticmethod
    def _kept(scores: torch.Tensor) -> tuple[np.ndarray, torch.Tensor] | None:
        """The tokens that all processors so far have kept, and their scores, shaped like those of `_candidates`.

        None where no token is left, or so many that `torch.multinomial` is as fast.
        """
        if scores.device.type != "cpu":
            return None
        tokens = np.flatnonzero(scores[0].numpy() > -np.inf)
        return (tokens, scores[:, tokens]) if 0 < len(tokens) <= MAX_KEPT else None


def _processed(processors: Sequence[LogitsProcessor], input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """As a `LogitsProcessorList`, which looks at the signature of each of them for every token."""
    for each in processors:
        scores = each(input_ids, scores)
    return scores


def highest(scores: np.ndarray, count: int) -> np.ndarray:
    """The tokens of the `count` highest scores, of shape (vocabulary,), in ascending order; none of a score of -inf.

    There are more where others equal the last one but for rounding, and some that are lower: all are given that are
    not below the `count`-th of the maxima of groups, which as many scores reach.
    """
    groups = len(scores) // GROUP_SIZE
    maxima = scores[: groups * GROUP_SIZE].reshape(GROUP_SIZE, groups).max(0) if count <= groups else scores
    least = np.partition(maxima, -count)[-count]
    if least == -np.inf:
        return np.flatnonzero(scores > -np.inf)
    return np.flatnonzero(scores >= least - abs(least) * ROUNDING)


class _Uniform:
    """The uniform numbers of one request, of which each token takes as many as the vocabulary has entries.

    Those for the next token can be drawn ahead, in a thread that all requests share. The draw takes as long as the
    rest of the choice, and does not hold Python's lock.
    """

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator, self._vocabulary = generator, 0
        self._before: torch.Tensor | None = None  # the state of the generator before the numbers that are drawn ahead
        self._ahead: torch.Tensor | BaseException | None = None  # these numbers, or why there are none
        self._drawing = threading.Lock()  # held until they are there

    def draw_ahead(self) -> None:
        """Has the numbers for the next token drawn. Not with the global generator, from which others draw too."""
        if self._generator is not None and self._before is None:
            self._before = self._generator.get_state()
            self._drawing.acquire()
            _asked().put(self._finish_ahead)

    def next(self, vocabulary: int, tokens: np.ndarray) -> torch.Tensor:
        """The numbers of these tokens, shape (kept,), of the float64 ones that are drawn for the whole vocabulary."""
        if vocabulary != self._vocabulary:
            self.take_back()
            self._vocabulary = vocabulary
        drawn = self._draw() if self._before is None else self._drawn_ahead()
        taken = drawn[torch.from_numpy(tokens)]
        _scratch.append(drawn)
        return taken

    def take_back(self) -> None:
        """Leaves the generator as if nothing had been drawn ahead."""
        if self._before is not None and self._generator is not None:
            before = self._before
            _scratch.append(self._drawn_ahead())
            self._generator.set_state(before)

    def _drawn_ahead(self) -> torch.Tensor:
        with self._drawing:
            drawn, self._ahead, self._before = self._ahead, None, None
        if isinstance(drawn, torch.Tensor):
            return drawn
        raise drawn or AssertionError("Nothing was drawn ahead.")

    def _finish_ahead(self) -> None:
        try:
            self._ahead = self._draw()
        except BaseException as error:  # it belongs to the request, not to the thread
            self._ahead = error
        self._drawing.release()

    def _draw(self) -> torch.Tensor:
        try:
            drawn = _scratch.pop()
        except IndexError:
            drawn = torch.empty(self._vocabulary, dtype=torch.float64)
        if drawn.shape[0] != self._vocabulary:  # of another model
            drawn = torch.empty(self._vocabulary, dtype=torch.float64)
        return drawn.uniform_(generator=self._generator)


# Where uniform numbers are drawn. The last one used is taken first, because it is still in the processor's cache.
# There are as many as were needed at the same time.
_scratch: list[torch.Tensor] = []


@functools.cache
def _asked() -> queue.SimpleQueue[Callable[[], None]]:
    """Where the thread that draws ahead finds its work."""
    asked = queue.SimpleQueue[Callable[[], None]]()

    @torch.inference_mode()
    def work() -> None:
        while True:
            asked.get()()

    threading.Thread(target=work, daemon=True, name="draw-ahead").start()
    return asked


if hasattr(os, "register_at_fork"):  # Windows does not have it, and does not fork
    os.register_at_fork(after_in_child=_asked.cache_clear)  # the child does not have the thread


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
