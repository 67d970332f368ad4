"""Who runs and who waits: a fixed number of turns at a time, the others in line, each told its place."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from parley.errors import ChatError

POLL_SECONDS = 0.25  # seconds between two looks of a waiting visitor, each of which notices that he has left


class WaitingLine:
    """A line in front of `max_running` places. Belongs to one event loop."""

    def __init__(self, max_running: int, max_waiting: int = 100) -> None:
        self._free = max_running
        self._max_waiting = max_waiting
        self._line: deque[object] = deque()

    async def enter(self) -> AsyncGenerator[int]:
        """Yields the place in the line (1 is next) while waiting, and ends once admitted; then `leave` is due.

        Raises `ChatError` when the line is full. A waiting visitor who closes the iterator leaves the line.
        """
        if len(self._line) >= self._max_waiting:
            raise ChatError(f"{len(self._line)} people are waiting already. Press Retry in a moment.")
        me = object()
        self._line.append(me)
        try:
            while not self._free or self._line[0] is not me:
                yield self._line.index(me) + 1
                await asyncio.sleep(POLL_SECONDS)
            self._free -= 1
        finally:
            self._line.remove(me)

    @property
    def num_waiting(self) -> int:
        """How many visitors stand in line."""
        return len(self._line)

    def leave(self) -> None:
        """Gives the place back."""
        self._free += 1
