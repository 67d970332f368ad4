"""Where the turn of a session on the page stands."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from parley.events import Usage
from parley.ui.stored_answer import StoredAnswer


class Phase(enum.Enum):
    """Where a turn stands.

    | phase | what has happened | on the second step | on Stop | on Clear |
    | --- | --- | --- | --- | --- |
    | ASKED | the question is shown, and its second step is on its way | ANSWERING | STOPPED_EARLY | CLEARED_EARLY |
    | STOPPED_EARLY | Stop came before the second step | STOPPED | | CLEARED_EARLY |
    | CLEARED_EARLY | Clear came before the second step | the turn ends, and nothing is shown | | |
    | ANSWERING | the second step runs an engine | refused | STOPPED | CLEARED |
    | STOPPED | Stop came during the answer, which ends with what there is | refused | | CLEARED |
    | CLEARED | Clear came during the answer, of which nothing more is shown | refused | | |
    """

    ASKED = enum.auto()
    STOPPED_EARLY = enum.auto()
    CLEARED_EARLY = enum.auto()
    ANSWERING = enum.auto()
    STOPPED = enum.auto()
    CLEARED = enum.auto()


ON_SECOND_STEP = {Phase.ASKED: Phase.ANSWERING, Phase.STOPPED_EARLY: Phase.STOPPED}
ON_STOP = {Phase.ASKED: Phase.STOPPED_EARLY, Phase.ANSWERING: Phase.STOPPED}
ON_CLEAR = {
    Phase.ASKED: Phase.CLEARED_EARLY,
    Phase.STOPPED_EARLY: Phase.CLEARED_EARLY,
    Phase.ANSWERING: Phase.CLEARED,
    Phase.STOPPED: Phase.CLEARED,
}
EARLY = (Phase.ASKED, Phase.STOPPED_EARLY, Phase.CLEARED_EARLY)


@dataclass
class TurnState:
    """The state of a session's turn, from its question on. Used on the event loop only."""

    started_at: float  # time.monotonic()
    num_messages: int  # the number of messages shown at the start; the second step must have the same number
    earlier: Usage | None = None  # that of the partial answer that is continued
    again: StoredAnswer | None = None  # the answer that broke off and is made again
    phase: Phase = Phase.ASKED

    def advance(self, transitions: Mapping[Phase, Phase]) -> None:
        """Goes to the next phase, or stays in this one if the table has no transition for it."""
        self.phase = transitions.get(self.phase, self.phase)
