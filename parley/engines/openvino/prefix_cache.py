"""The prefix cache of the OpenVINO engine: each session keeps a table of blocks, computed like a new prompt.

The keys and values of an answer, computed token by token in decode mode, round differently from the same tokens in a
prefill chunk. So after a turn only its prompt stays cached. The answer is prefilled again while no turn runs, or at
the latest by the next turn. The answers in a conversation are therefore the same, bit for bit, with or without the
cache.
"""

import atexit
import logging
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from parley.engines.openvino.batch import MIN_CHUNK
from parley.engines.openvino.decoder import PassInput
from parley.engines.openvino.model_adapter import chunk_ends
from parley.engines.openvino.paged_kv import BlockTable, OutOfBlocks, PagedKVCache
from parley.engines.openvino.scheduler import Scheduler
from parley.engines.openvino.turns import TURNS
from parley.engines.shared_prompts import SharedPrompts
from parley.generation.prefix_cache import CacheLease, LeaseRequest, SessionStore, common_prefix
from parley.generation.streaming import Interrupted

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.5  # how often the waiting thread looks whether a cache still exists


@dataclass
class Session:
    """The cached prefix of one session: `table` holds the first tokens of `sequence`, computed in prefill chunks."""

    table: BlockTable
    sequence: list[int] = field(default_factory=list)  # prompt and answer of the last turn, as generated
    unread: bool = False  # whether the rest of `sequence` shall be read while no turn runs

    def match_length(self, prompt: Sequence[int]) -> int:
        """How many tokens of this prompt are cached. The last `MIN_CHUNK` tokens are always read again."""
        common = common_prefix(self.sequence[: self.table.length], prompt)
        return min(common, max(0, len(prompt) - MIN_CHUNK))


class PagedPrefixCache(SessionStore[Session]):
    """The cached prefixes of all sessions for one model. No two sessions, and no two turns, share a table.

    It holds no memory of its own: its blocks are in the pool, which counts as the model's.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._reading: set[str] = set()  # the sessions whose answers background threads are reading
        self._changed = threading.Condition()
        weak_evict = weakref.WeakMethod(self._evict_oldest)
        scheduler.pool.reclaim = lambda: bool((evict := weak_evict()) and evict())

    def clear(self) -> None:
        """Drops the prefixes of all sessions, except those that are being read."""
        with self._changed:
            self._sessions = {key: cached for key, cached in self._sessions.items() if key in self._reading}

    @property
    def is_reading(self) -> bool:
        """Whether background threads are reading answers."""
        return bool(self._reading)

    @contextmanager
    def acquire(self, request: LeaseRequest) -> Iterator[CacheLease]:
        """The session's table for one turn; see `PrefixCache.acquire`. The answer is read when no turn runs."""
        table = self._take(request.session, request.prompt)
        try:
            yield CacheLease(table.length, {"past_key_values": PagedKVCache([table], len(request.prompt))})
        except Interrupted:
            self._store(request, table)
            raise
        self._store(request, table, unread=True)
        READER.start(weakref.ref(self))

    def _take(self, session: str, prompt: Sequence[int]) -> BlockTable:
        with self._changed:
            self._changed.wait_for(lambda: session not in self._reading)
            cached = self._sessions.pop(session, None) or Session(BlockTable(self._scheduler.pool))
        cached.table.crop(cached.match_length(prompt))
        return cached.table

    def _store(self, request: LeaseRequest, table: BlockTable, unread: bool = False) -> None:
        table.crop(len(request.prompt))
        with self._changed:
            self._sessions.pop(request.session, None)
            self._sessions[request.session] = Session(table, [*request.prompt, *request.answer()], unread)

    def shared(self, session: str, keeps_states: bool) -> "SharedTables":
        """The prompts of a comparison, which begin with what is cached of the session. See `Engine.shared_prompts`."""
        return SharedTables(self._scheduler, lambda prompt: self._fork(session, prompt), keeps_states)

    def _fork(self, session: str, prompt: Sequence[int]) -> BlockTable:
        with self._changed:
            self._changed.wait_for(lambda: session not in self._reading)
            cached = self._sessions.get(session)
            table = cached.table.fork() if cached else BlockTable(self._scheduler.pool)
        table.crop(cached.match_length(prompt) if cached else 0)
        return table

    def _evict_oldest(self) -> bool:
        with self._changed:
            oldest = next((session for session in self._sessions if session not in self._reading), None)
            return oldest is not None and bool(self._sessions.pop(oldest))

    def read_chunk(self) -> bool:
        """Reads one chunk of an answer that is not read yet; False if there is none."""
        with self._changed:
            unread = (each for each, cached in self._sessions.items() if cached.unread and each not in self._reading)
            session = next(unread, None)
            if session is None:
                return False
            cached = self._sessions[session]
            begin = cached.table.length
            ends = chunk_ends(len(cached.sequence) - begin, self._scheduler.max_rows)
            if not ends or ends[0] < MIN_CHUNK:
                cached.unread = False
                return True
            self._reading.add(session)  # keeps other threads from taking or evicting the session
        try:
            ids = cached.sequence[begin : begin + ends[0]]
            self._scheduler.run([PassInput(cached.table, ids, is_chunk=True, num_logits=0)])
        except BaseException as error:  # the next turn reads the rest, and reports a new error
            cached.unread = False
            if not isinstance(error, OutOfBlocks):
                raise
        finally:
            with self._changed:
                self._reading.discard(session)
                self._changed.notify_all()
        return True


@dataclass
class SharedPrompt:
    """A prompt that is read once: its table and, where a strategy compares them, the states of its tokens."""

    table: BlockTable
    states: list[np.ndarray] = field(default_factory=list)  # each of shape (tokens, width)


class SharedTables(SharedPrompts[SharedPrompt]):
    """Block tables that hold prompts; a turn gets a fork, which shares their blocks until it writes to one.

    With `keeps_states` the states of the tokens are kept for contrastive search, and a prompt is read from its start.
    """

    def __init__(
        self, scheduler: Scheduler, begin: Callable[[Sequence[int]], BlockTable], keeps_states: bool = False
    ) -> None:
        super().__init__()
        self._scheduler, self._table, self.keeps_states = scheduler, begin, keeps_states

    def _begin(self, prompt: Sequence[int]) -> SharedPrompt:
        return SharedPrompt(BlockTable(self._scheduler.pool) if self.keeps_states else self._table(prompt))

    def _read_on(self, read: SharedPrompt, prompt: Sequence[int]) -> None:
        if self.keeps_states and sum(map(len, read.states)) != read.table.length:
            read.table.crop(0)  # the turn that read it was stopped, and its states are lost
            read.states.clear()
        rest = prompt[read.table.length : len(prompt) - MIN_CHUNK]
        if len(rest) >= MIN_CHUNK:
            output = self._scheduler.run([PassInput(read.table, rest, is_chunk=True, num_logits=0)])
            if self.keeps_states:
                read.states.append(output.hidden)

    def _lease(self, read: SharedPrompt, request: LeaseRequest) -> CacheLease:
        cache = PagedKVCache([read.table.fork()], len(request.prompt))
        cache.beside = self.table
        cache.states = torch.from_numpy(np.concatenate(read.states)) if read.states else None
        return CacheLease(read.table.length, {"past_key_values": cache})

    def table(self, prompt: Sequence[int]) -> BlockTable:
        """A sequence that holds this prompt but for its end."""
        return self._once(prompt).table.fork()


class Reader:
    """The background thread that reads answers while no turn runs. It is there only while some are not read.

    One for all: on a busy machine, where turns always run, answers wait for as long as that lasts.
    At exit the process waits for it: a pass that still runs when the interpreter ends aborts the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._caches: dict[weakref.ref[PagedPrefixCache], None] = {}  # that have answers to read, in order
        self._closing = False
        atexit.register(self.close)

    def start(self, cache: "weakref.ref[PagedPrefixCache]") -> None:
        """Has what is unread of this cache read, chunk by chunk. The thread does not keep the cache alive."""
        with self._lock:
            self._caches.setdefault(cache)
            if not self._thread:
                self._thread = threading.Thread(target=self._run, daemon=True, name="read-answer")
                self._thread.start()

    def close(self) -> None:
        """Ends the thread after its present chunk."""
        self._closing = True
        if thread := self._thread:
            thread.join()

    def _run(self) -> None:
        while self._has_work():
            if TURNS.wait_for_idle(POLL_SECONDS):
                self._read_chunk()

    def _has_work(self) -> bool:
        with self._lock:
            self._caches = {each: None for each in self._caches if each() is not None}
            if self._closing or not self._caches:
                self._thread = None
                return False
            return True

    def _read_chunk(self) -> None:
        with self._lock:
            weak_cache = next(iter(self._caches))
            del self._caches[weak_cache]  # whoever has a new answer meanwhile puts it in again
        cache, has_more = weak_cache(), True
        try:
            has_more = cache is not None and cache.read_chunk()
        except Exception as error:  # the answers of others are read on
            _log.exception("An answer was not read to its end")
            traceback.clear_frames(error.__traceback__)  # a log handler may keep the error, and so the blocks
        if has_more:
            with self._lock:
                self._caches.setdefault(weak_cache)


READER = Reader()
