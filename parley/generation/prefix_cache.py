"""The KV cache that outlives a turn: each session's own, bounded in bytes, reused only where it is provably right.

In float32 no greedy token changes. In 16 bits a prompt that is read in other pieces rounds otherwise, so that of two
tokens which are about equally likely the other one may come.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import (
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from parley.generation.streaming import Interrupted

# Templates open an answer with a few tokens that the history may show differently (an opened thought): a copy of a
# cache that cannot be cropped is taken so many tokens before the end of the prompt.
BEFORE_THE_END = 8
STATEFUL = (
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
KNOWN = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer, *STATEFUL)


@dataclass(frozen=True)
class CacheSnapshot:
    """What a model keeps of a sequence. The cache has one row, and has seen exactly `ids`."""

    ids: Sequence[int]
    cache: DynamicCache

    def match_length(self, prompt: Sequence[int]) -> int:
        """How many tokens of this prompt need not be read again; the last one always is."""
        common = common_prefix(self.ids, prompt[:-1])
        return common if common == len(self.ids) or croppable(self.cache, len(self.ids)) else 0


@dataclass(frozen=True)
class SessionCache:
    """What one turn left behind: all its tokens, and the states of some of their beginnings."""

    sequence: Sequence[int]  # the prompt and the answer as it was generated
    snapshots: tuple[CacheSnapshot, ...]

    @property
    def bytes(self) -> int:
        """The memory of its tensors; a part of a larger tensor counts as the whole, which it keeps alive."""
        storages = [t.untyped_storage() for state in self.snapshots for t in _tensors(state.cache)]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


@dataclass
class CacheLease:
    """What a turn gets for its prompt."""

    cached_tokens: int = 0  # of the prompt; they are not read again
    arguments: dict[str, Any] = field(default_factory=dict)  # for `generate`, beside the whole prompt


class NoPrefixCache:
    """Keeps nothing: every prompt is read from its beginning."""

    @property
    def bytes(self) -> int:
        """The memory that it holds beyond that of the model."""
        return 0

    def clear(self) -> None:
        """Nothing is given up."""

    def sequence(self, session: str) -> Sequence[int]:
        """No tokens."""
        return ()

    @contextmanager
    def acquire(
        self,
        session: str,
        prompt: Sequence[int],
        num_sequences: int,
        max_length: int,
        answer: Callable[[], Sequence[int]],
    ) -> Iterator[CacheLease]:
        """An empty lease."""
        yield CacheLease()


class PrefixCache(NoPrefixCache):
    """What the sessions left behind with one model, the longest unused given up when it is more than `most` bytes.

    Belongs to the engine of that model, and goes with it. What a session left is taken out while a turn of it runs,
    so no two turns ever share a cache.
    """

    def __init__(self, model: PreTrainedModel, most: Callable[[], int]) -> None:
        self._model, self._most = model, most
        self._sessions: dict[str, SessionCache] = {}  # the longest unused first
        self._lock = threading.Lock()
        self._sound: bool | None = None  # not tried yet

    @property
    def bytes(self) -> int:
        """What all that is remembered takes; what is lent does not count."""
        return sum(kept.bytes for kept in tuple(self._sessions.values()))

    def clear(self) -> None:
        """Gives up all but what is lent."""
        with self._lock:
            self._sessions.clear()

    def session(self, session: str) -> SessionCache | None:
        """What the session's last turn left; None while a turn has it."""
        return self._sessions.get(session)

    def sequence(self, session: str) -> Sequence[int]:
        """The tokens of the session's last turn, the prompt and what was generated; empty while it is lent."""
        kept = self.session(session)
        return kept.sequence if kept else ()

    @contextmanager
    def acquire(
        self,
        session: str,
        prompt: Sequence[int],
        num_sequences: int,
        max_length: int,
        answer: Callable[[], Sequence[int]],
    ) -> Iterator[CacheLease]:
        """A cache for `generate` with `num_sequences` sequences, for the length of a `with` block.

        `max_length` is how many tokens prompt and answer may have; `answer` returns, at the end, what was generated.
        After an `Interrupted` what is whole is kept, after any other exception nothing. May run the model on the
        prompt.
        """
        if self._sound is None:
            self._sound = supports_multi_token_continuation(self._model)
        if not self._sound:
            yield CacheLease()
            return
        turn = _Turn(self._model, prompt, max_length, self._take(session))
        try:
            yield CacheLease(turn.reached, {"past_key_values": turn.cache(num_sequences)})
        except Interrupted:
            self._put(session, turn.snapshot_after(answer(), interrupted=True))
            raise
        self._put(session, turn.snapshot_after(answer(), interrupted=False))

    def _take(self, session: str) -> Sequence[CacheSnapshot]:
        with self._lock:
            kept = self._sessions.pop(session, None)
        return kept.snapshots if kept else ()

    def _put(self, session: str, left: SessionCache) -> None:
        with self._lock:
            self._sessions.pop(session, None)
            self._sessions[session] = left
            held, most = self.bytes, self._most()
            while held > most:
                held -= self._sessions.pop(next(iter(self._sessions))).bytes


class _Turn:
    """One turn's way with its cache: it begins with the best of the earlier states and ends with its own."""

    def __init__(
        self, model: PreTrainedModel, prompt: Sequence[int], max_length: int, earlier: Sequence[CacheSnapshot]
    ) -> None:
        self._model, self._prompt, self._max_length = model, list(prompt), max_length
        self._copy: CacheSnapshot | None = None
        best = max(earlier, key=lambda state: state.match_length(prompt), default=None)
        self.reached = self._read = best.match_length(prompt) if best else 0
        self._cache = best.cache if best and self.reached else new_cache(model)
        if best and 0 < self.reached < len(best.ids):
            self._cache.crop(self.reached - len(best.ids))

    def cache(self, num_sequences: int) -> DynamicCache:
        """The cache for `generate`. Several rows get one of their own, for nothing of a beam search can be kept."""
        if not croppable(self._cache, self._max_length):
            self._read_to(len(self._prompt) - BEFORE_THE_END)
            self._copy = CacheSnapshot(self._prompt[: self._read], copy.deepcopy(self._cache))
        if num_sequences == 1:
            return self._cache
        self._read_to(len(self._prompt) - 1)
        many = copy.deepcopy(self._cache)
        # As `batch_repeat_interleave`, which layers with a state do not have.
        many.reorder_cache(torch.zeros(num_sequences, dtype=torch.long, device=self._model.device))
        return many

    def snapshot_after(self, answer: Sequence[int], interrupted: bool) -> SessionCache:
        """What may be used again: states of beginnings of the sequence, none that is in doubt."""
        sequence, layers = [*self._prompt, *answer], self._cache.layers
        for layer in layers:
            if getattr(layer, "record_past", False):  # set by speculative decoding, which crops after each step
                layer.record_past = False
        lengths = _lengths(self._cache)
        # A pass that broke off fed the first layers only, and the last guesses may be wrong.
        sound = min(*lengths, len(sequence))
        states = [self._copy] if self._copy else []
        if croppable(self._cache, max(lengths)):
            for layer in layers:
                if isinstance(layer, CacheLayerMixin) and layer.get_seq_length() > sound:
                    layer.crop(sound - layer.get_seq_length())
            states.append(CacheSnapshot(sequence[:sound], self._cache))
        elif not interrupted and set(lengths) == {sound}:
            states.append(CacheSnapshot(sequence[:sound], self._cache))
        return SessionCache(sequence, tuple(state for state in states if state.ids))

    def _read_to(self, end: int) -> None:
        """Has the model read the prompt up to there."""
        if end > self._read:
            ids = torch.tensor([self._prompt[:end]], device=self._model.device)
            once = GenerationConfig(max_new_tokens=1, do_sample=False)
            mask = torch.ones_like(ids)
            self._model.generate(ids, attention_mask=mask, generation_config=once, past_key_values=self._cache)
            self._read = end


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items, tokens or characters, both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache with the layers that `generate` would give this model."""
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def croppable(cache: DynamicCache, length: int) -> bool:
    """Whether tokens can be taken back from it when it has seen so many.

    Layers with a state cannot, nor those whose window has begun to slide. The library could record what they drop,
    but for as long as it does, the memory is that of full attention.
    """
    return all(
        length < layer.sliding_window if type(layer) is DynamicSlidingWindowLayer else type(layer) not in STATEFUL
        for layer in cache.layers
    )


@torch.inference_mode()
def supports_multi_token_continuation(model: PreTrainedModel) -> bool:
    """Whether this model can go on from a cache with several tokens at once.

    False where its kind of cache is not known here, or has no length. Layers with a state are tried: not all code
    that updates one takes more than one token. Runs the model on a few tokens then.
    """
    if not model._supports_default_dynamic_cache() or "past_key_values" not in signature(model.forward).parameters:
        return False
    cache = new_cache(model)
    if not all(type(layer) in KNOWN for layer in cache.layers) or not _lengths(cache):
        return False
    if not any(type(layer) in STATEFUL for layer in cache.layers):
        return True
    ids = torch.arange(1, 21, device=model.device)[None]
    once = GenerationConfig(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)

    def logits(count: int, **given: Any) -> torch.Tensor:
        mask = torch.ones_like(ids[:, :count])
        return model.generate(ids[:, :count], attention_mask=mask, generation_config=once, **given).logits[0].float()

    logits(11, past_key_values=cache)
    whole, continued = logits(20), logits(20, past_key_values=cache)
    return bool((whole - continued).norm() < torch.finfo(model.dtype).eps ** 0.5 * whole.norm())


def _lengths(cache: DynamicCache) -> list[int]:
    return [layer.get_seq_length() for layer in cache.layers if isinstance(layer, CacheLayerMixin)]


def _tensors(cache: DynamicCache) -> Iterator[torch.Tensor]:
    for layer in cache.layers:
        for value in vars(layer).values():
            for each in value.values() if isinstance(value, dict) else (value,):
                if isinstance(each, torch.Tensor):
                    yield each
