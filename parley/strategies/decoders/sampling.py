"""Chooses the next token from one row of logits: the same token as `generate`, in a fraction of the time.

With equal seeds the tokens are those of `generate`, which draws by `torch.multinomial`. That takes the token with the
largest quotient of probability and exponential noise. The noise is -log1p(-u), with one uniform float64 u for each
entry of the vocabulary.
"""

import math

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

# Processors that read only the probabilities of the tokens that top-k kept. They give the same result for these alone.
KEPT_ONLY = (TopPLogitsWarper, MinPLogitsWarper, TypicalLogitsWarper, EpsilonLogitsWarper, EtaLogitsWarper)
MAX_KEPT = 1024  # tokens; for more, `torch.multinomial` is as fast


class Sampler:
    """Greedy search or sampling, after `processors`.

    Processors after top-k see only the tokens that it kept. Otherwise top-p would sort the whole vocabulary.
    """

    def __init__(
        self, processors: LogitsProcessorList, do_sample: bool, generator: torch.Generator | None = None
    ) -> None:
        at = next((i for i, each in enumerate(processors) if isinstance(each, TopKLogitsWarper)), len(processors))
        rest = processors[at + 1 :]
        if not all(isinstance(each, KEPT_ONLY) for each in rest):
            at, rest = len(processors), []
        self._full_processors, self._kept_processors = (
            LogitsProcessorList(processors[: at + 1]),
            LogitsProcessorList(rest),
        )
        self._do_sample, self._generator = do_sample, generator or torch.default_generator

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The token, shape (1, 1), that follows `input_ids`, shape (1, tokens). `logits` has shape (1, vocabulary)."""
        scores = self._full_processors(input_ids, logits)
        if not self._do_sample:
            return scores.argmax(-1, keepdim=True)
        kept = (
            (scores[0] > -math.inf).nonzero()[:, 0] if scores.device.type == "cpu" else scores.new_empty(MAX_KEPT + 1)
        )
        if not 0 < len(kept) <= MAX_KEPT:
            scores = self._kept_processors(input_ids, scores)
            return torch.multinomial(scores.softmax(-1), num_samples=1, generator=self._generator_on(scores.device))
        probabilities = self._kept_processors(input_ids, scores[:, kept]).softmax(-1)[0]
        uniform = torch.empty(scores.shape[1], dtype=torch.float64).uniform_(generator=self._generator)
        noise = -torch.log1p(-uniform[kept]).to(probabilities.dtype)
        return kept[(probabilities / noise).argmax()].view(1, 1)

    def _generator_on(self, device: torch.device) -> torch.Generator | None:
        return self._generator if device.type == "cpu" else None
