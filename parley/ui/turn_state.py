"""The turns of the sessions on the page, which counts them."""

import asyncio
import time
from dataclasses import dataclass, field

MAX_STEP_SECONDS = 100.0  # after this time the question of a turn that was stopped is not expected any more


@dataclass
class TurnState:
    """A turn, from the first that the server hears of it: its question, or a Stop that was faster."""

    number: int
    named_at: float  # time.monotonic()
    begun: bool = False
    stopped: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Turns:
    """The newest turn of each session. Used on the event loop only."""

    def __init__(self) -> None:
        self._newest: dict[str | None, TurnState] = {}  # by session

    def begin(self, session: str | None, number: int) -> TurnState | None:
        """The turn, which runs from now on; None if it has begun before, or the session has a newer one."""
        turn = self._named(session, number)
        if turn is None or turn.begun:
            return None
        turn.begun = True
        return turn

    def stop(self, session: str | None, number: int) -> bool:
        """Marks the turn as stopped, also where its question is on the way; False if the session has a newer one."""
        turn = self._named(session, number)
        if turn:
            turn.stopped = True
        return turn is not None

    async def until_over(self, session: str | None) -> None:
        """Waits until the session has no turn that runs."""
        while (turn := self._newest.get(session)) and turn.begun:
            await turn.over.wait()

    def end(self, session: str | None, turn: TurnState) -> None:
        """Forgets the turn. The session may have its next one already."""
        turn.over.set()
        if self._newest.get(session) is turn:
            del self._newest[session]

    def _named(self, session: str | None, number: int) -> TurnState | None:
        newest = self._newest.get(session)
        if newest and newest.number >= number:
            return newest if newest.number == number else None
        now = time.monotonic()
        self._newest = {
            key: turn for key, turn in self._newest.items() if turn.begun or now - turn.named_at < MAX_STEP_SECONDS
        }
        self._newest[session] = TurnState(number, now)
        return self._newest[session]
