"""Watermarks: marks in the choice of tokens that only the key finds again, the same on every device.

Green lists: https://arxiv.org/abs/2301.10226. SynthID Text: https://doi.org/10.1038/s41586-024-08025-4. The marks are
the library's: https://huggingface.co/docs/transformers/generation_features#watermarking.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import (
    LogitsProcessor,
    PreTrainedConfig,
    SynthIDTextWatermarkingConfig,
    SynthIDTextWatermarkLogitsProcessor,
    WatermarkDetector,
    WatermarkingConfig,
)
from transformers.generation.logits_process import SynthIDTextWatermarkState

from parley.errors import BadSetting
from parley.strategies.processors.watermark_detection import Detection

DEPTH = 30  # the layers of the tournament in the paper's experiments
NO_TOKEN = -1  # of no vocabulary


class Mark(ABC):
    """A watermark and its key, for `GenerationConfig(watermarking_config=…)`, which applies it last of all processors.

    It is what its `repr` says, which is Python; the library's own hold any two of a class for equal.
    """

    context: int  # how many tokens before a token have a part in its mark
    to_dict: Callable[[], dict[str, Any]]  # the library's own: its settings as plain data

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @abstractmethod
    def measure(self, ids: Sequence[int], vocabulary: int) -> Detection:
        """See `detect`; `ids` are more than `context`."""


class GreenList(Mark, WatermarkingConfig):
    """Raises the logits of a part of the vocabulary by `bias`; key and last token choose it (Kirchenbauer, 2023)."""

    # "lefthash" reads no more of a longer context; "selfhash", which does, draws 40 lists for every token.
    context = 1

    def __init__(self, key: int, bias: float, greenlist_ratio: float = 0.25) -> None:
        _check(key)
        super().__init__(greenlist_ratio, bias, key, seeding_scheme="lefthash", context_width=self.context)

    def __repr__(self) -> str:
        return f"GreenList(key={self.hashing_key}, bias={self.bias}, greenlist_ratio={self.greenlist_ratio})"

    def construct_processor(self, vocab_size: int, device: Any) -> LogitsProcessor:
        """A processor for `device` with the lists of the CPU: the library's draws others on a GPU."""
        return _OnCpu(super().construct_processor(vocab_size, "cpu"))

    def measure(self, ids: Sequence[int], vocabulary: int) -> Detection:
        """See `detect`; every pair of a token and the one before counts once, however often it occurs."""
        config = PreTrainedConfig(vocab_size=vocabulary, bos_token_id=None)
        detector = WatermarkDetector(config, "cpu", self, ignore_repeated_ngrams=True)
        detector.bos_token_id = NO_TOKEN  # it leaves out a first token that is this one, and fails on None
        found = detector(torch.tensor([ids]), return_dict=True)
        scored, green = int(found.num_tokens_scored[0]), int(found.num_green_tokens[0])
        return Detection(scored, float(found.z_score[0]), _at_least(green, scored, self.greenlist_ratio))


class SynthID(Mark, SynthIDTextWatermarkingConfig):
    """Draws each token in a tournament of many layers that the key referees (Dathathri et al., 2024).

    Over all keys a token is as likely as without it; with one key little is left to the sampler's chance.
    """

    context = 4  # as in the paper: less would repeat within an answer, and a repeated context is not marked

    def __init__(self, key: int) -> None:
        _check(key)
        self.key = key
        size = 2**16  # the library's own; of a key no more than its remainder counts, and layers must differ
        keys = random.Random(key).sample(range(size), DEPTH)
        super().__init__(ngram_len=self.context + 1, keys=keys, sampling_table_size=size)

    def __repr__(self) -> str:
        return f"SynthID(key={self.key})"

    def construct_processor(self, vocab_size: int, device: Any) -> LogitsProcessor:
        """A processor for `device` with the coins of the CPU: the library's draws others on a GPU."""
        known = {name: getattr(self, name) for name in ("keys", "ngram_len", "sampling_table_size")}
        known |= {name: getattr(self, name) for name in ("sampling_table_seed", "context_history_size")}
        return _Tournament(_FewCoins(**known, device="cpu"), device)

    def measure(self, ids: Sequence[int], vocabulary: int) -> Detection:
        """See `detect`; the weighted mean of the coins, of which the first layers' say most."""
        processor = super().construct_processor(vocabulary, "cpu")
        tokens = torch.tensor([ids])
        counts = processor.compute_context_repetition_mask(tokens)[0]  # (tokens - context,)
        coins = processor.compute_g_values(tokens)[0][counts].double()  # (scored, layers)
        weights = torch.linspace(10, 1, DEPTH, dtype=torch.double)  # the paper's code
        scored = len(coins)
        # A fair coin has the mean 1/2 and the standard deviation 1/2.
        z = float(((coins - 0.5) @ weights).sum() / (0.5 * weights.norm() * math.sqrt(scored)))
        return Detection(scored, z, 0.5 * math.erfc(z / math.sqrt(2)))


def detect(mark: Mark, ids: Sequence[int], vocabulary: int) -> Detection:
    """How surely the tokens `ids` of an answer, without its prompt and special tokens, bear `mark`.

    `vocabulary` is the `vocab_size` of the model's config, which is often larger than the tokenizer's. A text that is
    too short to score is not marked.
    """
    if len(ids) <= mark.context:
        return Detection(scored=0, z=0.0, p=1.0)
    return mark.measure(ids, vocabulary)


class _OnCpu(LogitsProcessor):
    """A processor of the CPU for a model on any device."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self._processor = processor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (rows, vocabulary); those that are minus infinity stay so."""
        return self._processor(input_ids.cpu(), scores.cpu()).to(scores.device)


class _FewCoins(SynthIDTextWatermarkLogitsProcessor):
    """The library's SynthID, which tosses its coins for the tokens only that can still be drawn.

    For a vocabulary of 150,000 that takes 0.2 s a token on a CPU, and after top-k it is a matter of fifty.
    """

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (rows, vocabulary)."""
        self._size, self._left = scores.shape[1], (scores > -math.inf).any(0).nonzero()[:, 0]
        return super().__call__(input_ids, scores)

    def _compute_keys(self, n_minus_1_grams: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._compute_keys(n_minus_1_grams, indices[:, self._left])

    def sample_g_values(self, ngram_keys: torch.Tensor) -> torch.Tensor:
        """The coins, shape (rows, vocabulary, layers): heads for none of those that cannot be drawn."""
        coins = super().sample_g_values(ngram_keys).to(torch.int8)  # (rows, left, layers)
        rows, _, layers = coins.shape
        every = coins.new_zeros(rows, layers, self._size)  # a layer's lie together, for they are read so
        every[:, :, self._left] = coins.transpose(1, 2)
        return every.transpose(1, 2)


class _Tournament(LogitsProcessor):
    """The library's SynthID with the CPU's coins on any device, and a memory that follows its rows.

    The coins move to the scores and not the other way, for there are many.
    """

    def __init__(self, processor: SynthIDTextWatermarkLogitsProcessor, device: Any) -> None:
        processor.keys, processor.sampling_table = processor.keys.to(device), processor.sampling_table.to(device)
        processor.device = device
        self._processor = processor
        self._prompt: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (rows, vocabulary); those that are minus infinity become the lowest finite number."""
        if self._prompt is None:
            self._prompt = input_ids.shape[1]
        self._processor.state = self._state(input_ids[:, self._prompt :])
        return self._processor(input_ids, scores)

    def _state(self, said: torch.Tensor) -> SynthIDTextWatermarkState | None:
        """What the library would remember before it takes the last of `said`, shape (rows, tokens).

        Its own memory is of what its rows were: a beam search moves them, and a draft's tokens may be taken back.
        """
        rows, tokens = said.shape
        if not tokens:
            return None
        processor = self._processor
        size, width = processor.context_history_size, processor.ngram_len - 1
        state = SynthIDTextWatermarkState(rows, processor.ngram_len, size, processor.device)
        contexts = F.pad(said, (width, 0)).unfold(1, width, 1)[:, :-1]  # (rows, tokens, width): of each token said
        seen = processor.accumulate_hash(torch.ones_like(said), contexts)
        state.context = contexts[:, -1]
        state.context_history = F.pad(seen.flip(1), (0, size))[:, :size]
        state.num_calls = tokens
        return state


def _check(key: int) -> None:
    """Zero would forget the context, and torch's generator takes 32 bits of a seed."""
    if not 1 <= key < 2**32:
        raise BadSetting(f"The key of a watermark cannot be {key}. Choose one from 1 to {2**32 - 1}.")


def _at_least(green: int, scored: int, ratio: float) -> float:
    """The chance of that many or more, exactly: of four tokens all green, the normal curve makes a proof."""
    chance = torch.distributions.Binomial(scored, torch.tensor(ratio, dtype=torch.double))
    tail = chance.log_prob(torch.arange(green, scored + 1, dtype=torch.double)).exp().sum()
    return min(1.0, float(tail))
