"""Measures of a text by itself, with no model: how much it repeats.

distinct-2 is that of Li et al., 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models"
(https://arxiv.org/abs/1510.03055): how many different pairs of words there are, as a share of all pairs. The share of
repeated 4-grams is seq-rep-4 of Welleck et al., 2020, "Neural Text Generation with Unlikelihood Training"
(https://arxiv.org/abs/1908.04319): one minus the same share of runs of four. Both are of words here and not of tokens,
so that they can be compared between models.
"""

import re
from collections.abc import Sequence

# A word, or a single sign. Scripts that are written without spaces count by the letter.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """The words and signs of a text, in lower case."""
    return _WORD.findall(text.lower())


def distinct(found: Sequence[str], n: int) -> float | None:
    """How many different runs of `n` words there are, as a share of all; None where there is no such run."""
    runs = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def repeated(found: Sequence[str], n: int) -> float | None:
    """The share of runs of `n` words that have occurred before; None where there is no such run."""
    share = distinct(found, n)
    return None if share is None else 1 - share
