"""Runs a turn's plain iterator in a thread of its own and reads it from the event loop, which never waits for it."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from gradio.context import LocalContext

from parley.engines.base import Delta
from parley.serving.waiting_line import LOOK

_OVER = object()
PATIENCE = 1.0  # seconds that a turn in another process has, after Stop, for a last delta of its own


class Running:
    """One turn under way, from the moment that it was asked for.

    `stop` reaches its engine, wherever it runs, and tells whether that is in this process.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop
        self._left = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[object] = asyncio.Queue()
        self.begun = False  # something came

    @property
    def stopped(self) -> bool:
        """Whether nothing of it is wanted any more."""
        return self._left.is_set()

    def stop(self) -> None:
        """Ends the turn within one forward pass; in another process with its next delta; at once before it began."""
        if self._stop():
            return
        if self.begun:
            self._loop.call_later(PATIENCE, self._leave)
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
                    async with asyncio.timeout(LOOK):  # `wait_for` of Python 3.11 can swallow a cancellation
                        item = await self._queue.get()
                except TimeoutError:
                    item = Delta(status="" if self.begun else waiting())
                if item is _OVER or self._left.is_set():
                    return
                if isinstance(item, BaseException):
                    raise item
                assert isinstance(item, Delta)
                yield item
        finally:
            self._left.set()
            self._stop()
            if not self.begun:
                self._give_up_waiting()

    def _leave(self) -> None:
        self._left.set()
        self._queue.put_nowait(_OVER)

    def _pump(self, source: Callable[[], Iterator[Delta]]) -> None:
        """Reads to the end even if nobody wants it: where a turn is closed `spaces` may stop another in its place."""
        try:
            for delta in source():
                self.begun = True
                if self._left.is_set():
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

    def _give_up_waiting(self) -> None:
        """Takes the turn out of the line for a GPU.

        `spaces` leaves it when Gradio's event is not alive, which must not be before the page has its last message.
        """
        blocks, id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
        jobs = blocks._queue.active_jobs if blocks else []
        events = [event for job in jobs for event in job or () if event._id == id]

        async def kill(event: Any) -> None:
            while any(event in (job or ()) for job in jobs):
                await asyncio.sleep(LOOK)
            event.alive = False

        for event in events:
            self._killing = self._loop.create_task(kill(event))
