"""Runs a turn's plain iterator in a thread of its own and reads it from the event loop, which never waits for it."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing

from parley.engines.base import Delta

_OVER = object()


class Running:
    """One turn under way, from the moment that it was asked for. `stop` reaches its engine; False if none runs yet."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop
        self._left = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[object] = asyncio.Queue()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called before the engine began, or the iteration has ended."""
        return self._left.is_set()

    def stop(self) -> None:
        """Ends the turn within one forward pass, or, where it runs in another process, after its next delta."""
        if not self._stop():
            self._left.set()

    async def deltas(self, source: Callable[[], Iterator[Delta]]) -> AsyncGenerator[Delta]:
        """Yields what `source` makes and raises what it raises. To be closed, which stops it, by whoever iterates."""
        # The context carries the request, from which `spaces` takes the visitor's quota.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._pump, source), daemon=True, name="turn").start()
        try:
            while (item := await self._queue.get()) is not _OVER:
                if isinstance(item, BaseException):
                    raise item
                assert isinstance(item, Delta)
                yield item
        finally:
            self._left.set()
            self._stop()

    def _pump(self, source: Callable[[], Iterator[Delta]]) -> None:
        try:
            with closing(source()) as deltas:
                for delta in deltas:
                    self._hand_over(delta)
                    if self._left.is_set():
                        break
        except BaseException as error:
            self._hand_over(error)
        else:
            self._hand_over(_OVER)

    def _hand_over(self, item: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
