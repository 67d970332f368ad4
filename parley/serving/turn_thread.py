"""Runs a turn's plain iterator in a thread of its own and reads it from the event loop, which never waits for it."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator

from parley.events import Delta
from parley.serving.waiting_line import POLL_SECONDS

_OVER = object()
STOP_GRACE_SECONDS = 1.0  # seconds that a turn in another process has, after Stop, for a last delta of its own


class TurnThread:
    """One turn under way, from the moment that it was asked for.

    `stop` reaches its engine, wherever it runs, and tells whether that is in this process. `leave_queue` takes a turn
    that has not begun out of the queue of another process.
    """

    def __init__(self, stop: Callable[[], bool], leave_queue: Callable[[], None] = lambda: None) -> None:
        self._stop, self._leave_queue = stop, leave_queue
        self._abandoned = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[object] = asyncio.Queue()
        self.begun = False  # something came

    @property
    def stopped(self) -> bool:
        """Whether nothing of it is wanted any more."""
        return self._abandoned.is_set()

    def stop(self) -> None:
        """Ends the turn within one forward pass; in another process with its next delta; at once before it began."""
        if self._stop():
            return
        if self.begun:
            self._loop.call_later(STOP_GRACE_SECONDS, self._leave)
        else:
            self._leave()

    async def deltas(
        self, source: Callable[[], Iterator[Delta]], waiting: Callable[[], str] = str
    ) -> AsyncGenerator[Delta]:
        """Yields what `source` makes, raises what it raises, and gives heartbeats where it is silent for long.

        Those before it has begun say what one is `waiting` for. To be closed, which stops it, by whoever iterates.
        """
        # The context carries the request, from which `spaces` takes the visitor's quota.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._pump, source), daemon=True, name="turn").start()
        try:
            while True:
                try:
                    async with asyncio.timeout(POLL_SECONDS):  # `wait_for` of Python 3.11 can swallow a cancellation
                        item = await self._queue.get()
                except TimeoutError:
                    item = Delta(status="" if self.begun else waiting())
                if item is _OVER or self._abandoned.is_set():
                    return
                if isinstance(item, BaseException):
                    raise item
                assert isinstance(item, Delta)
                yield item
        finally:
            self._abandoned.set()
            self._stop()
            if not self.begun:
                self._leave_queue()

    def _leave(self) -> None:
        self._abandoned.set()
        self._queue.put_nowait(_OVER)

    def _pump(self, source: Callable[[], Iterator[Delta]]) -> None:
        """Reads to the end even if nobody wants it: where a turn is closed `spaces` may stop another in its place."""
        try:
            for delta in source():
                self.begun = True
                if self._abandoned.is_set():
                    self._stop()  # again: before the turn had begun it reached nobody
                else:
                    self._hand_over(delta)
        except BaseException as error:
            self._hand_over(error)
        else:
            self._hand_over(_OVER)

    def _hand_over(self, item: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
