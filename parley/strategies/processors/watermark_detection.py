"""The result of a watermark detector."""

from dataclasses import dataclass

MAX_P_VALUE = 0.001  # the false positive rate: low enough to try several keys on several texts


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
