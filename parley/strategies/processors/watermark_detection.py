"""The result of a watermark detector."""

import enum
from dataclasses import dataclass

MAX_P_VALUE = 0.001  # the false positive rate: low enough to try several keys on several texts
MAX_DOUBTFUL_P_VALUE = 0.05  # below it there may be a mark that the text is too predictable to show


class Verdict(enum.StrEnum):
    """What can be said of a text."""

    FOUND = "found"
    UNSURE = "too short or too predictable to say"
    NONE = "no sign"


@dataclass(frozen=True)
class Detection:
    """The evidence in a text for the watermark with one key."""

    scored: int  # how many tokens counted
    z: float  # the z-score: how far the tokens are above chance, in standard deviations
    p: float  # the p-value: the probability that a text without this watermark scores as high

    @property
    def marked(self) -> bool:
        """Whether the text counts as watermarked."""
        return self.p < MAX_P_VALUE

    def verdict(self, needed: int) -> Verdict:
        """`needed` is how many tokens the watermark needs to be found: `Strategy.mark_tokens`."""
        if self.marked:
            return Verdict.FOUND
        return Verdict.UNSURE if self.scored < needed or self.p < MAX_DOUBTFUL_P_VALUE else Verdict.NONE
