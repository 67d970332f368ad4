"""The next token of a row of logits, as `generate` would choose it, in a fraction of the time that its ways take.

With equal seeds the tokens are those of `generate`: it draws by `torch.multinomial`, which takes the largest of
probability divided by exponential noise, -log1p(-u) of one float64 uniform for each entry of the vocabulary.
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

# What looks at nothing but the probabilities that top-k has left: it gives the same for these alone.
NARROW = (TopPLogitsWarper, MinPLogitsWarper, TypicalLogitsWarper, EpsilonLogitsWarper, EtaLogitsWarper)
FEW = 1024  # entries: for more, torch's own draw takes no longer


class Sampler:
    """Greedy search or sampling, after `processors`.

    Processors after top-k see only the tokens that it has left: top-p would sort the whole vocabulary.
    """

    def __init__(
        self, processors: LogitsProcessorList, do_sample: bool, generator: torch.Generator | None = None
    ) -> None:
        at = next((i for i, each in enumerate(processors) if isinstance(each, TopKLogitsWarper)), len(processors))
        rest = processors[at + 1 :]
        if not all(isinstance(each, NARROW) for each in rest):
            at, rest = len(processors), []
        self._wide, self._narrow = LogitsProcessorList(processors[: at + 1]), LogitsProcessorList(rest)
        self._do_sample, self._generator = do_sample, generator or torch.default_generator

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The token, shape (1, 1), after `input_ids`, shape (1, tokens), by `logits`, shape (1, vocabulary)."""
        scores = self._wide(input_ids, logits)
        if not self._do_sample:
            return scores.argmax(-1, keepdim=True)
        kept = (scores[0] > -math.inf).nonzero()[:, 0] if scores.device.type == "cpu" else scores.new_empty(FEW + 1)
        if not 0 < len(kept) <= FEW:
            scores = self._narrow(input_ids, scores)
            return torch.multinomial(scores.softmax(-1), num_samples=1, generator=self._generator_on(scores.device))
        chances = self._narrow(input_ids, scores[:, kept]).softmax(-1)[0]
        uniform = torch.empty(scores.shape[1], dtype=torch.float64).uniform_(generator=self._generator)
        noise = -torch.log1p(-uniform[kept]).to(chances.dtype)
        return kept[(chances / noise).argmax()].view(1, 1)

    def _generator_on(self, device: torch.device) -> torch.Generator | None:
        return self._generator if device.type == "cpu" else None
