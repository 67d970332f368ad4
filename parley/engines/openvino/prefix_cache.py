"""The keys and values that outlive a turn: each session's own table of blocks, written as a cold prompt would be.

What an answer wrote, one token at a time, rounds otherwise than the same tokens as a piece of a prompt. So after a
turn only its prompt is kept, and its answer is read once more, in pieces: while no turn runs, or at the latest by the
next turn. A conversation is then the same, bit for bit, whether it was kept, given up or restarted.
"""

import atexit
import logging
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from parley.engines.openvino.decoder import Decoder, Rows
from parley.engines.openvino.model_adapter import cuts
from parley.engines.openvino.paged_kv import BlockTable, OutOfBlocks, PagedKVCache
from parley.generation.prefix_cache import CacheLease, NoPrefixCache, common_prefix
from parley.generation.streaming import Interrupted

_log = logging.getLogger(__name__)
MIN_PIECE = 2  # rows of a piece: one row alone would be of decode's class


class Turns:
    """How many turns run in this process, so that what can wait does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """One more, for the length of a `with` block."""
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def wait_for_idle(self, seconds: float) -> bool:
        """Whether none runs, at the latest after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)


TURNS = Turns()
LOOK_SECONDS = 0.5  # between two looks whether what waits for an idle machine is still wanted


@dataclass
class Session:
    """What one session left: `table` holds the first tokens of `sequence`, all of them written as pieces."""

    table: BlockTable
    sequence: list[int] = field(default_factory=list)  # prompt and answer of the last turn, as generated

    def match_length(self, prompt: Sequence[int]) -> int:
        """How many tokens of this prompt need not be read again; the last ones always are, as a piece."""
        common = common_prefix(self.sequence[: self.table.length], prompt)
        return min(common, max(0, len(prompt) - MIN_PIECE))


class PagedPrefixCache(NoPrefixCache):
    """What the sessions left behind with one model. No two sessions, and no two turns, share a table."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._sessions: dict[str, Session] = {}  # the longest unused first
        self._reading = ""  # the session whose answer is being read just now
        self._changed = threading.Condition()
        oldest = weakref.WeakMethod(self._give_up_oldest)
        decoder.pool.reclaim = lambda: bool((give_up := oldest()) and give_up())

    @property
    def bytes(self) -> int:
        """Nothing beyond the pool, whose memory is the model's."""
        return 0

    def clear(self) -> None:
        """Gives up all but what a turn has."""
        with self._changed:
            self._sessions = {session: kept for session, kept in self._sessions.items() if session == self._reading}

    @property
    def is_reading(self) -> bool:
        """Whether an answer is being read just now."""
        return bool(self._reading)

    def session(self, session: str) -> Session | None:
        """What the session's last turn left; None while a turn has it."""
        return self._sessions.get(session)

    def sequence(self, session: str) -> Sequence[int]:
        """The tokens of the session's last turn, the prompt and what was generated; empty while a turn has it."""
        kept = self._sessions.get(session)
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
        """The session's table for one turn; see `PrefixCache.acquire`. The answer is read once no turn runs."""
        table = self._take(session, prompt)
        try:
            yield CacheLease(table.length, {"past_key_values": PagedKVCache([table], len(prompt))})
        except Interrupted:
            self._leave(session, table, prompt, answer())
            raise
        self._leave(session, table, prompt, answer())
        READERS.start(weakref.ref(self), session)

    def _take(self, session: str, prompt: Sequence[int]) -> BlockTable:
        with self._changed:
            self._changed.wait_for(lambda: self._reading != session)
            kept = self._sessions.pop(session, None) or Session(BlockTable(self._decoder.pool))
        kept.table.crop(kept.match_length(prompt))
        return kept.table

    def _leave(self, session: str, table: BlockTable, prompt: Sequence[int], answer: Sequence[int]) -> None:
        table.crop(len(prompt))
        with self._changed:
            self._sessions.pop(session, None)
            self._sessions[session] = Session(table, [*prompt, *answer])

    def _give_up_oldest(self) -> bool:
        with self._changed:
            oldest = next((session for session in self._sessions if session != self._reading), None)
            return oldest is not None and bool(self._sessions.pop(oldest))

    def read_piece(self, session: str) -> bool:
        """Reads one piece of the session's last answer; False where nothing is left to read."""
        with self._changed:
            kept = self._sessions.get(session)
            if kept is None:
                return False
            held = kept.table.length
            ends = cuts(len(kept.sequence) - held, self._decoder.max_rows)
            if not ends or ends[0] < MIN_PIECE:
                return False
            self._reading = session  # nobody takes it meanwhile, nor gives it up
        try:
            self._decoder.run([Rows(kept.table, kept.sequence[held : held + ends[0]], piece=True, wanted=0)])
        except OutOfBlocks:
            return False
        finally:
            with self._changed:
                self._reading = ""
                self._changed.notify_all()
        return True


class Readers:
    """The threads that read answers while no turn runs. At exit they are waited for: a pass that the interpreter
    leaves behind aborts the process.
    """

    def __init__(self) -> None:
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._closing = False
        atexit.register(self.close)

    def start(self, cache: "weakref.ref[PagedPrefixCache]", session: str) -> None:
        """Reads a session's answer piece by piece. Does not keep the cache alive."""
        thread = threading.Thread(target=self._read, args=(cache, session), daemon=True, name="read-answer")
        self._threads.add(thread)
        thread.start()

    def close(self) -> None:
        """Ends them after the pieces that they are at."""
        self._closing = True
        for thread in list(self._threads):
            thread.join()

    def _read(self, cache: "weakref.ref[PagedPrefixCache]", session: str) -> None:
        while not self._closing:
            idle = TURNS.wait_for_idle(LOOK_SECONDS)
            alive = cache()
            try:
                if alive is None or (idle and not alive.read_piece(session)):
                    return
            except RuntimeError as error:  # the library's; the next turn reads the rest, and tells its reader
                _log.exception("An answer was not read to its end")
                traceback.clear_frames(error.__traceback__)  # else a log that keeps it keeps the blocks too
                return
            del alive


READERS = Readers()
