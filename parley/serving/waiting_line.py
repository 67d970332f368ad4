"""Who runs and who waits: a fixed number of turns at a time, the others in line, each told its place."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from parley.errors import ChatError

LOOK = 0.25  # seconds between two looks of a waiting visitor, each of which notices that he has left


class Admission:
    """A line in front of `slots` places. Belongs to one event loop."""

    def __init__(self, slots: int, longest: int = 100) -> None:
        self._free = slots
        self._longest = longest
        self._line: deque[object] = deque()

    async def enter(self) -> AsyncGenerator[int]:
        """Yields the place in the line (1 is next) while waiting, and ends once admitted; then `leave` is due.

        Raises `ChatError` when the line is full. A waiting visitor who closes the iterator leaves the line.
        """
        if len(self._line) >= self._longest:
            raise ChatError(f"{len(self._line)} people are waiting already. Press Retry in a moment.")
        me = object()
        self._line.append(me)
        try:
            while not self._free or self._line[0] is not me:
                yield self._line.index(me) + 1
                await asyncio.sleep(LOOK)
            self._free -= 1
        finally:
            self._line.remove(me)

    def leave(self) -> None:
        """Gives the place back."""
        self._free += 1
