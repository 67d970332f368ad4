"""What a detector of watermarks says of a text."""

from dataclasses import dataclass

CHANCE = 0.001  # of calling a text marked that is not: rare enough to try several keys on several texts


@dataclass(frozen=True)
class Detection:
    """What a text says about one key."""

    scored: int  # how many tokens counted
    z: float  # how far above chance they are, in standard deviations
    p: float  # the chance that a text without this mark scores as high

    @property
    def marked(self) -> bool:
        """Whether chance is ruled out, as far as `CHANCE` says."""
        return self.p < CHANCE
