"""Watermarks: patterns in the choice of tokens that only the holder of the key can detect. Equal on every device.

Green lists: https://arxiv.org/abs/2301.10226. SynthID Text: https://doi.org/10.1038/s41586-024-08025-4. Both are
implemented in transformers: https://huggingface.co/docs/transformers/generation_features#watermarking.
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

DEPTH = 30  # layers of the tournament, as in the paper's experiments
NO_TOKEN = -1  # an id that is in no vocabulary


class Mark(ABC):
    """A watermark and its key, for `GenerationConfig(watermarking_config=…)`, which applies it after all processors.

    Its `repr` is a Python expression that makes an equal one. Two marks are equal if their `repr` is. Transformers
    would treat any two configs of one class as equal.
    """

    context: int  # how many earlier tokens decide the watermark of a token
    to_dict: Callable[[], dict[str, Any]]  # from transformers: the settings as plain data
    in_files: bool  # whether transformers reads that data from a `generation_config.json`

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @abstractmethod
    def measure(self, ids: Sequence[int], vocabulary: int) -> Detection:
        """See `detect`; there are more `ids` than `context`."""


class GreenList(Mark, WatermarkingConfig):
    """Raises the logits of a part of the vocabulary, the green list, by `bias` (Kirchenbauer et al., 2023).

    The key and the last token determine the green list.
    """

    # "lefthash" reads one token of the context only. "selfhash" reads more, but draws 40 lists for every token.
    context = 1
    in_files = True

    def __init__(self, key: int, bias: float, greenlist_ratio: float = 0.25) -> None:
        _check(key)
        super().__init__(greenlist_ratio, bias, key, seeding_scheme="lefthash", context_width=self.context)

    def __repr__(self) -> str:
        return f"GreenList(key={self.hashing_key}, bias={self.bias}, greenlist_ratio={self.greenlist_ratio})"

    def construct_processor(self, vocab_size: int, device: Any) -> LogitsProcessor:
        """A processor for `device` with the green lists of the CPU. On a GPU transformers would draw other lists."""
        return _OnCpu(super().construct_processor(vocab_size, "cpu"))

    def measure(self, ids: Sequence[int], vocabulary: int) -> Detection:
        """See `detect`. Each pair of neighbouring tokens counts once, however often it occurs."""
        config = PreTrainedConfig(vocab_size=vocabulary, bos_token_id=None)
        detector = WatermarkDetector(config, "cpu", self, ignore_repeated_ngrams=True)
        detector.bos_token_id = NO_TOKEN  # the detector would skip a first token with this id, and fails on None
        found = detector(torch.tensor([ids]), return_dict=True)
        scored, green = int(found.num_tokens_scored[0]), int(found.num_green_tokens[0])
        return Detection(scored, float(found.z_score[0]), _at_least(green, scored, self.greenlist_ratio))


class SynthID(Mark, SynthIDTextWatermarkingConfig):
    """Draws each token in a tournament of `DEPTH` layers, decided by the g-values of the key (Dathathri et al., 2024).

    Averaged over all keys, each token is as likely as without the watermark. With one key the text varies little
    between seeds.
    """

    context = 4  # as in the paper; shorter contexts repeat more often, and a repeated context is not watermarked
    in_files = False  # transformers takes each mark in a file for a green list

    def __init__(self, key: int) -> None:
        _check(key)
        self.key = key
        size = 2**16  # as in transformers, which uses keys modulo this size; the keys of the layers must differ
        keys = random.Random(key).sample(range(size), DEPTH)
        super().__init__(ngram_len=self.context + 1, keys=keys, sampling_table_size=size)

    def __repr__(self) -> str:
        return f"SynthID(key={self.key})"

    def construct_processor(self, vocab_size: int, device: Any) -> LogitsProcessor:
        """A processor for `device` with the g-values of the CPU. On a GPU transformers would draw other values."""
        arguments = {name: getattr(self, name) for name in ("keys", "ngram_len", "sampling_table_size")}
        arguments |= {name: getattr(self, name) for name in ("sampling_table_seed", "context_history_size")}
        return _StatelessSynthID(_SparseSynthID(**arguments, device="cpu"), device)

    def measure(self, ids: Sequence[int], vocabulary: int) -> Detection:
        """See `detect`. The score is the weighted mean of the g-values; the first layers weigh most."""
        processor = super().construct_processor(vocabulary, "cpu")
        tokens = torch.tensor([ids])
        mask = processor.compute_context_repetition_mask(tokens)[0]  # (tokens - context,)
        g_values = processor.compute_g_values(tokens)[0][mask].double()  # (scored, depth)
        weights = torch.linspace(10, 1, DEPTH, dtype=torch.double)  # as in the paper's code
        scored = len(g_values)
        # Without a watermark a g-value has the mean 1/2 and the standard deviation 1/2.
        z = float(((g_values - 0.5) @ weights).sum() / (0.5 * weights.norm() * math.sqrt(scored)))
        return Detection(scored, z, 0.5 * math.erfc(z / math.sqrt(2)))


def detect(mark: Mark, ids: Sequence[int], vocabulary: int) -> Detection:
    """The evidence for `mark` in the tokens `ids` of an answer, without its prompt and special tokens.

    `vocabulary` is the `vocab_size` of the model's config, which is often larger than the tokenizer's. A text that is
    too short to score counts as not watermarked.
    """
    if len(ids) <= mark.context:
        return Detection(scored=0, z=0.0, p=1.0)
    return mark.measure(ids, vocabulary)


class _OnCpu(LogitsProcessor):
    """Runs a processor on the CPU for a model on any device."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self._processor = processor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (sequences, vocabulary); minus infinity stays minus infinity."""
        return self._processor(input_ids.cpu(), scores.cpu()).to(scores.device)


class _SparseSynthID(SynthIDTextWatermarkLogitsProcessor):
    """SynthID of transformers, with g-values computed only for tokens that can still be drawn.

    G-values for a whole vocabulary of 150,000 take 0.2 s for each token on a CPU. Top-k leaves about fifty tokens.
    """

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (sequences, vocabulary)."""
        self._vocabulary, self._kept = scores.shape[1], (scores > -math.inf).any(0).nonzero()[:, 0]
        return super().__call__(input_ids, scores)

    def _compute_keys(self, n_minus_1_grams: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._compute_keys(n_minus_1_grams, indices[:, self._kept])

    def sample_g_values(self, ngram_keys: torch.Tensor) -> torch.Tensor:
        """The g-values, shape (sequences, vocabulary, depth); zero for tokens that cannot be drawn."""
        kept = super().sample_g_values(ngram_keys).to(torch.int8)  # (sequences, kept, depth)
        sequences, _, depth = kept.shape
        g_values = kept.new_zeros(sequences, depth, self._vocabulary)  # contiguous by layer, the order of reading
        g_values[:, :, self._kept] = kept.transpose(1, 2)
        return g_values.transpose(1, 2)


class _StatelessSynthID(LogitsProcessor):
    """SynthID of transformers with the CPU's g-values on any device, and with its state computed from the ids.

    The sampling table moves to the device of the scores, because the scores are larger.
    """

    def __init__(self, processor: SynthIDTextWatermarkLogitsProcessor, device: Any) -> None:
        processor.keys, processor.sampling_table = processor.keys.to(device), processor.sampling_table.to(device)
        processor.device = device
        self._processor = processor
        self._prompt_length: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (sequences, vocabulary); minus infinity becomes the lowest finite number."""
        if self._prompt_length is None:
            self._prompt_length = input_ids.shape[1]
        self._processor.state = self._state(input_ids[:, self._prompt_length :])
        return self._processor(input_ids, scores)

    def _state(self, answer: torch.Tensor) -> SynthIDTextWatermarkState | None:
        """The state of transformers before it takes the last token of `answer`, shape (sequences, tokens).

        Its own state would be wrong, because a beam search reorders the sequences, and draft tokens may be rejected.
        """
        sequences, tokens = answer.shape
        if not tokens:
            return None
        processor = self._processor
        size, width = processor.context_history_size, processor.ngram_len - 1
        state = SynthIDTextWatermarkState(sequences, processor.ngram_len, size, processor.device)
        contexts = F.pad(answer, (width, 0)).unfold(1, width, 1)[:, :-1]  # of each token: (sequences, tokens, width)
        hashes = processor.accumulate_hash(torch.ones_like(answer), contexts)
        state.context = contexts[:, -1]
        state.context_history = F.pad(hashes.flip(1), (0, size))[:, :size]
        state.num_calls = tokens
        return state


def _check(key: int) -> None:
    """Raises `BadSetting` for a key that cannot work. Zero would cancel the context; torch takes 32 bits of a seed."""
    if not 1 <= key < 2**32:
        raise BadSetting(f"The key of a watermark cannot be {key}. Choose one from 1 to {2**32 - 1}.")


def _at_least(green: int, scored: int, ratio: float) -> float:
    """The exact probability of `green` or more of `scored` tokens.

    The normal approximation is wrong for few tokens: four tokens, all of them green, would count as proof.
    """
    chance = torch.distributions.Binomial(scored, torch.tensor(ratio, dtype=torch.double))
    tail = chance.log_prob(torch.arange(green, scored + 1, dtype=torch.double)).exp().sum()
    return min(1.0, float(tail))
