"""The waiting line: a fixed number of turns runs at a time, and the others wait and see their place in the line."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from parley.errors import ChatError

POLL_SECONDS = 0.25  # how often a waiting turn yields; Gradio can end it then if its visitor has left


class WaitingLine:
    """Admits `max_running` turns at a time; the others wait in line. To be used in one event loop only."""

    def __init__(self, max_running: int, max_waiting: int = 100) -> None:
        self._free = max_running
        self._max_waiting = max_waiting
        self._line: deque[object] = deque()

    async def enter(self) -> AsyncGenerator[int]:
        """Yields the place in the line (1 is next) while waiting, and ends once admitted. Then `leave` has to follow.

        Raises `ChatError` if the line is full. Closing the iterator while waiting leaves the line.
        """
        if len(self._line) >= self._max_waiting:
            raise ChatError(f"{len(self._line)} people are waiting already. Press Retry in a moment.")
        ticket = object()
        self._line.append(ticket)
        try:
            while not self._free or self._line[0] is not ticket:
                yield self._line.index(ticket) + 1
                await asyncio.sleep(POLL_SECONDS)
            self._free -= 1
        finally:
            self._line.remove(ticket)

    @property
    def num_waiting(self) -> int:
        """How many visitors wait in the line."""
        return len(self._line)

    def leave(self) -> None:
        """Frees the place of a turn that was admitted."""
        self._free += 1
