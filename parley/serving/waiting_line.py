"""The waiting line: so many turns of a model run at a time, and the others wait and see their place in the line."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable

from parley.errors import ChatError

POLL_SECONDS = 0.25  # how often a waiting turn yields; Gradio can end it then if its visitor has left


class WaitingLine:
    """Admits some turns at a time; the others wait in line. To be used in one event loop only."""

    def __init__(self, max_waiting: int = 1000) -> None:
        self._max_waiting = max_waiting
        self.num_running = 0
        self._line: deque[object] = deque()

    async def enter(self, max_running: Callable[[], int], turns: int = 1) -> AsyncGenerator[int]:
        """Yields the place in the line (1 is next) while waiting, and ends once admitted. Then `leave` has to follow.

        Admitted is who is next while fewer turns run than `max_running` returns. A comparison has several `turns`,
        which are admitted together; those for which there is never room run one after the other.
        Raises `ChatError` if the line is full. Closing the iterator while waiting leaves the line.
        """
        if len(self._line) >= self._max_waiting:
            raise ChatError(f"{len(self._line)} people are waiting already. Press Retry in a moment.")
        ticket = object()
        self._line.append(ticket)
        try:
            while self._line[0] is not ticket or self.num_running + min(turns, max_running()) > max_running():
                yield self._line.index(ticket) + 1
                await asyncio.sleep(POLL_SECONDS)
            self.num_running += turns
        finally:
            self._line.remove(ticket)

    @property
    def num_waiting(self) -> int:
        """How many visitors wait in the line."""
        return len(self._line)

    def leave(self, turns: int = 1) -> None:
        """Frees the places of what was admitted."""
        self.num_running -= turns


LINES: defaultdict[str, WaitingLine] = defaultdict(WaitingLine)  # by the name of a model that computes in this process
