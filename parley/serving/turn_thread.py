"""Runs the synchronous iterator of a turn in its own thread, and reads it from the event loop without blocking."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

from parley.events import Delta
from parley.serving.operations import ending
from parley.serving.waiting_line import POLL_SECONDS

Event = TypeVar("Event")  # a `Delta`, or what has one
_OVER = object()
STOP_GRACE_SECONDS = 1.0  # how long after Stop a turn in another process may still send its last delta


class TurnThread:
    """A turn, from the visitor's request on.

    `stop` stops the engine, and returns whether it runs in this process. `leave_queue` takes a turn that has not begun
    out of ZeroGPU's queue.
    """

    def __init__(self, stop: Callable[[], bool], leave_queue: Callable[[], None] = lambda: None) -> None:
        self._stop, self._leave_queue = stop, leave_queue
        self._abandoned = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[object] = asyncio.Queue()
        self.begun = False  # whether a delta has arrived

    @property
    def stopped(self) -> bool:
        """Whether the turn was stopped or closed, so that its further deltas are ignored."""
        return self._abandoned.is_set()

    def stop(self) -> None:
        """Ends the turn: within one forward pass, in another process with the next delta, at once before it begins."""
        if self._stop():
            return
        if self.begun:
            self._loop.call_later(STOP_GRACE_SECONDS, self._leave)
        else:
            self._leave()

    async def deltas(
        self, source: Callable[[], Iterator[Event]], waiting: Callable[[], str] = str
    ) -> AsyncGenerator[Event | Delta]:
        """Yields the events of `source`, raises what it raises, and yields heartbeats while it is silent.

        Before the turn begins, a heartbeat has the status `waiting()`. The caller has to close the iterator, which
        stops the turn.
        """
        # The context holds the request, from which `spaces` takes the visitor's quota.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._pump, source), daemon=True, name="turn").start()
        cut = False  # because the app ends
        try:
            while True:
                if not cut and ending.CUT.is_set():
                    cut = True
                    self.stop()
                    self._loop.call_later(STOP_GRACE_SECONDS, self._leave)  # also where a model is being loaded
                try:
                    async with asyncio.timeout(POLL_SECONDS):  # `wait_for` of Python 3.11 can swallow a cancellation
                        item = await self._queue.get()
                except TimeoutError:
                    item = Delta(status="" if self.begun else waiting())
                if item is _OVER or self._abandoned.is_set():
                    if cut:
                        raise ending.refusal()
                    return
                if isinstance(item, BaseException):
                    raise ending.refusal() if cut else item
                yield item  # type: ignore[misc]
        finally:
            self._abandoned.set()
            self._stop()
            if not self.begun:
                self._leave_queue()

    def _leave(self) -> None:
        self._abandoned.set()
        self._queue.put_nowait(_OVER)

    def _pump(self, source: Callable[[], Iterator[Any]]) -> None:
        """Reads `source` to its end, even if the turn is abandoned: closing it may make `spaces` stop another turn."""
        try:
            for delta in source():
                self.begun = True
                if self._abandoned.is_set():
                    self._stop()  # again, because a stop before the turn begins has no effect
                else:
                    self._put(delta)
        except BaseException as error:
            self._put(error)
        else:
            self._put(_OVER)

    def _put(self, item: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
