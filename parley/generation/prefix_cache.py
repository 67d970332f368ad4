"""The prefix cache: KV caches that are kept between turns, one for each session, with a limit in bytes.

In float32 no greedy token changes. In 16 bits a prompt that is split into other chunks has other rounding errors, so a
different token may be chosen of two that are about equally likely.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Generic, Protocol, TypeVar

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import (
    CacheLayerMixin,
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from parley.generation.streaming import Interrupted
from parley.positions import Rotation

# A template starts an answer with a few tokens that the next prompt may lack, such as an opened thought. So a snapshot
# of a cache that cannot be cropped is taken this many tokens before the end of the prompt.
SNAPSHOT_MARGIN = 8
STATEFUL = (
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
KNOWN = (DynamicLayer, DynamicIndexedLayer, DynamicSlidingWindowLayer, DummyLayer, *STATEFUL)


@dataclass(frozen=True)
class CacheSnapshot:
    """A KV cache of one sequence, which holds exactly the tokens `ids`."""

    ids: Sequence[int]
    cache: DynamicCache
    rotation: tuple[int, ...] = ()  # the frequencies of its keys; see `Rotation.at`

    def match_length(self, prompt: Sequence[int], rotation: Rotation) -> int:
        """How many tokens of this prompt the cache can provide. The last token is always fed again."""
        common = common_prefix(self.ids, prompt[:-1])
        if rotation.at(len(prompt)) != self.rotation or rotation.rereads(common, len(prompt)):
            return 0
        return common if common == len(self.ids) or croppable(self.cache, len(self.ids)) else 0


@dataclass(frozen=True)
class SessionCache:
    """What is cached after a turn: all its tokens, and snapshots of some of their prefixes."""

    sequence: Sequence[int]  # the prompt and the answer, as generated
    snapshots: tuple[CacheSnapshot, ...]

    @property
    def bytes(self) -> int:
        """The memory of its tensors. A view counts as its whole storage, because it keeps that alive."""
        storages = [t.untyped_storage() for state in self.snapshots for t in _tensors(state.cache)]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


@dataclass(frozen=True)
class LeaseRequest:
    """What a turn needs a cache for."""

    session: str
    prompt: Sequence[int]
    num_sequences: int
    max_length: int  # tokens of the prompt and the answer together, at most
    answer: Callable[[], Sequence[int]]  # returns the generated tokens; called when the turn ends


@dataclass
class CacheLease:
    """The cache that a turn uses."""

    cached_tokens: int = 0  # tokens of the prompt that are in the cache
    arguments: dict[str, Any] = field(default_factory=dict)  # for `generate`, together with the whole prompt


class NoPrefixCache:
    """Caches nothing: every prompt is prefilled from the start."""

    keeps_states = False  # of the tokens that it caches

    @property
    def bytes(self) -> int:
        """The memory of the cache, without that of the model."""
        return 0

    def clear(self) -> None:
        """No-op: there is nothing to free."""

    def sequence(self, session: str) -> Sequence[int]:
        """No tokens."""
        return ()

    @contextmanager
    def acquire(self, request: LeaseRequest) -> Iterator[CacheLease]:
        """An empty lease."""
        yield CacheLease()


class HasSequence(Protocol):
    """What is kept of one session."""

    @property
    def sequence(self) -> Sequence[int]:
        """The tokens of its last turn, prompt and answer."""
        ...


Kept = TypeVar("Kept", bound=HasSequence)


class SessionStore(NoPrefixCache, Generic[Kept]):
    """Keeps something for each session, except while a turn uses it."""

    def __init__(self) -> None:
        self._sessions: dict[str, Kept] = {}  # least recently used first

    def session(self, session: str) -> Kept | None:
        """What is kept of the session; None where there is nothing, or while a turn uses it."""
        return self._sessions.get(session)

    def sequence(self, session: str) -> Sequence[int]:
        """The tokens of the session's last turn, prompt and answer; empty while a turn uses them."""
        kept = self.session(session)
        return kept.sequence if kept else ()


class PrefixCache(SessionStore[SessionCache]):
    """The caches of all sessions for one model. Above `max_bytes` the least recently used ones are evicted.

    An engine has one for its model. While a turn runs, the cache of its session is taken out, so no two turns ever
    share a cache.
    """

    def __init__(self, model: PreTrainedModel, max_bytes: Callable[[], int]) -> None:
        super().__init__()
        self._model, self._max_bytes = model, max_bytes
        self._lock = threading.Lock()
        self._supported: bool | None = None  # whether the model can use a cache; None: not tried yet

    @property
    def bytes(self) -> int:
        """The memory of all caches that are not leased."""
        return sum(cached.bytes for cached in tuple(self._sessions.values()))

    def clear(self) -> None:
        """Frees all caches that are not leased."""
        with self._lock:
            self._sessions.clear()

    @contextmanager
    def acquire(self, request: LeaseRequest) -> Iterator[CacheLease]:
        """Leases a cache for `generate`, for the duration of a `with` block.

        After `Interrupted` the complete part of the cache is kept, after any other exception nothing. May run the
        model on the prompt.
        """
        if not self.is_supported:
            yield CacheLease()
            return
        turn = TurnCache(self._model, request.prompt, request.max_length, self._take(request.session))
        try:
            yield CacheLease(turn.cached_tokens, {"past_key_values": turn.cache(request.num_sequences)})
        except Interrupted:
            self._put(request.session, turn.snapshot_after(request.answer(), interrupted=True))
            raise
        self._put(request.session, turn.snapshot_after(request.answer(), interrupted=False))

    @property
    def is_supported(self) -> bool:
        """Whether the model can use a cache. The first time, it may have to be tried."""
        if self._supported is None:
            self._supported = supports_multi_token_continuation(self._model)
        return self._supported

    def snapshots(self, session: str) -> Sequence[CacheSnapshot]:
        """What is cached of the session; only for reading."""
        kept = self.session(session)
        return kept.snapshots if kept else ()

    def _take(self, session: str) -> Sequence[CacheSnapshot]:
        with self._lock:
            cached = self._sessions.pop(session, None)
        return cached.snapshots if cached else ()

    def _put(self, session: str, cache: SessionCache) -> None:
        with self._lock:
            self._sessions.pop(session, None)
            self._sessions[session] = cache
            used, max_bytes = self.bytes, self._max_bytes()
            while used > max_bytes:
                used -= self._sessions.pop(next(iter(self._sessions))).bytes


class TurnCache:
    """The cache of one turn. Starts from the best of the earlier snapshots, and makes new ones at the end."""

    def __init__(
        self, model: PreTrainedModel, prompt: Sequence[int], max_length: int, earlier: Sequence[CacheSnapshot]
    ) -> None:
        self._model, self._prompt, self._max_length = model, list(prompt), max_length
        self._prompt_snapshot: CacheSnapshot | None = None
        self._rotation = Rotation(model.config.get_text_config(decoder=True))
        best = max(earlier, key=lambda snapshot: snapshot.match_length(prompt, self._rotation), default=None)
        self.cached_tokens = self._prefilled = best.match_length(prompt, self._rotation) if best else 0
        self._cache = best.cache if best and self.cached_tokens else new_cache(model)
        if best and 0 < self.cached_tokens < len(best.ids):
            self._cache.crop(self.cached_tokens - len(best.ids))

    def cache(self, num_sequences: int) -> DynamicCache:
        """The cache for `generate`. Several sequences get a copy: the cache of a beam search cannot be kept."""
        if not croppable(self._cache, self._max_length):
            self._prefill(len(self._prompt) - SNAPSHOT_MARGIN)
            _compact(self._cache)
            self._prompt_snapshot = self._snapshot(self._prompt, self._prefilled, copy.deepcopy(self._cache))
        if num_sequences == 1:
            return self._cache
        self._prefill(len(self._prompt) - 1)
        _compact(self._cache)
        expanded = copy.deepcopy(self._cache)
        # Like `batch_repeat_interleave`, which layers with a state do not have.
        expanded.reorder_cache(torch.zeros(num_sequences, dtype=torch.long, device=self._model.device))
        return expanded

    def read_prompt(self) -> CacheSnapshot | None:
        """Reads the prompt but for its last token; None where that cannot be kept."""
        self._prefill(len(self._prompt) - 1)
        return self._snapshot(self._prompt, self._prefilled, self._cache) if self._prefilled else None

    def snapshot_after(self, answer: Sequence[int], interrupted: bool) -> SessionCache:
        """The snapshots that are certainly correct, of prefixes of the prompt and the answer."""
        sequence, layers = [*self._prompt, *answer], self._cache.layers
        for layer in layers:
            if getattr(layer, "record_past", False):  # set by speculative decoding, so that it can crop
                layer.record_past = False
        lengths = _lengths(self._cache)
        # An interrupted pass updated the first layers only, and the last draft tokens may be rejected ones.
        valid = min(*lengths, len(sequence))
        if not self._rotation.rereads(len(self._prompt), valid):
            valid = self._rotation.last_like(len(self._prompt), valid)
        snapshots = [self._prompt_snapshot] if self._prompt_snapshot else []
        if croppable(self._cache, max(lengths)):
            for layer in layers:
                if isinstance(layer, CacheLayerMixin) and layer.get_seq_length() > valid:
                    layer.crop(valid - layer.get_seq_length())
            snapshots.append(self._snapshot(sequence, valid, self._cache))
        elif not interrupted and set(lengths) == {valid}:
            snapshots.append(self._snapshot(sequence, valid, self._cache))
        return SessionCache(sequence, tuple(snapshot for snapshot in snapshots if snapshot.ids))

    def _snapshot(self, sequence: Sequence[int], length: int, cache: DynamicCache) -> CacheSnapshot:
        _compact(cache)
        return CacheSnapshot(sequence[:length], cache, self._rotation.at(max(length, len(self._prompt))))

    def _prefill(self, end: int) -> None:
        """Feeds the first `end` tokens of the prompt to the model, where they get the same keys as in the prompt."""
        if end > self._prefilled and self._rotation.at(end) == self._rotation.at(len(self._prompt)):
            ids = torch.tensor([self._prompt[:end]], device=self._model.device)
            once = GenerationConfig(max_new_tokens=1, do_sample=False)
            mask = torch.ones_like(ids)
            self._model.generate(ids, attention_mask=mask, generation_config=once, past_key_values=self._cache)
            self._prefilled = end


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The length of the common prefix of two sequences."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache with the layers that `generate` would make for this model."""
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def croppable(cache: DynamicCache, length: int) -> bool:
    """Whether a cache of `length` tokens can be cropped.

    Layers with a state cannot be cropped, nor layers whose window has begun to slide. Transformers could record what a
    window drops, but the cache would then take as much memory as full attention.
    """
    return all(
        length < layer.sliding_window if type(layer) is DynamicSlidingWindowLayer else type(layer) not in STATEFUL
        for layer in cache.layers
    )


@torch.inference_mode()
def supports_multi_token_continuation(model: PreTrainedModel) -> bool:
    """Whether this model can continue from a cache with several tokens in one pass.

    False where the type of a cache layer is unknown, or no layer has a length. With stateful layers it runs the model
    on a few tokens, because not every model can update a state with more than one token.
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

    def logits(count: int, **cached: Any) -> torch.Tensor:
        mask = torch.ones_like(ids[:, :count])
        return model.generate(ids[:, :count], attention_mask=mask, generation_config=once, **cached).logits[0].float()

    logits(11, past_key_values=cache)
    expected, continued = logits(20), logits(20, past_key_values=cache)
    return bool((expected - continued).norm() < torch.finfo(model.dtype).eps ** 0.5 * expected.norm())


def _lengths(cache: DynamicCache) -> list[int]:
    return [layer.get_seq_length() for layer in cache.layers if isinstance(layer, CacheLayerMixin)]


def _compact(cache: DynamicCache) -> None:
    """Gives keys and values storages of their own. A pass that several turns shared has put them into one of all."""
    for layer in cache.layers:
        for name in ("keys", "values"):
            states = getattr(layer, name, None)
            if isinstance(states, torch.Tensor) and states.untyped_storage().nbytes() > states.nbytes:
                setattr(layer, name, states.clone(memory_format=torch.contiguous_format))


def _tensors(cache: DynamicCache) -> Iterator[torch.Tensor]:
    for layer in cache.layers:
        for value in vars(layer).values():
            for each in value.values() if isinstance(value, dict) else (value,):
                if isinstance(each, torch.Tensor):
                    yield each
