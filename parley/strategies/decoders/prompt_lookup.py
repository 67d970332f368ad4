"""Guesses from the text itself: what followed the same few tokens before may follow them again (Saxena, 2023).

https://github.com/apoorvumang/prompt-lookup-decoding. These guesses look after themselves: they grow where they are
right and rest where they are wrong, so that they may stand behind every answer.
"""

from collections.abc import Sequence

MATCHING = 3  # tokens that have to be the same, where a guess costs something
FIRST, MOST = 4, 16  # tokens that are guessed at once, at the beginning and where all were right
PAYS = 2  # a pass over some guesses takes about as long as two over one token: so many have to be right on average
REST, LONGEST_REST = 4, 64  # tokens that come without guesses after a wrong guess, and after many


class PromptLookup:
    """What may come next in one answer. `take` wants every token in turn, those of the prompt included.

    `free` tokens cost nothing to guess: the model reads so many rows beside the one that it needs in the same time.
    They are guessed after fewer matching tokens too, never rest, and grow to all rows of a pass where they are right.
    """

    def __init__(self, ids: Sequence[int], free: int = 0) -> None:
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where it went on after these tokens, the last time
        self._match: int | None = None
        self._free = free
        self._lengths = range(MATCHING, 0, -1) if free else (MATCHING,)
        self._length, self._rest, self._next_rest = free or FIRST, 0, REST
        self._balance = 0.0  # how many more guesses were right than had to be, a running sum
        for id in ids:
            self.take(id)

    def take(self, id: int) -> None:
        """One more token of the text."""
        self._ids.append(id)
        self._rest = max(0, self._rest - 1)
        self._match = None
        for length in self._lengths:
            if len(self._ids) >= length:
                last = tuple(self._ids[-length:])
                self._match = self._match or self._after.get(last)
                self._after[last] = len(self._ids)

    def next(self, most: int) -> list[int]:
        """The tokens that are guessed to follow, at most so many; none where nothing speaks for any.

        Where the text goes round, so do they: those before reach the end of it before there are enough.
        """
        if self._match is None or self._rest:
            return []
        round_ = len(self._ids) - self._match
        return [self._ids[self._match + i % round_] for i in range(min(self._length, most))]

    def record(self, guessed: int, right: int) -> None:
        """What became of the last guesses; to be called after the tokens that came of them were taken."""
        if self._free:
            self._length = min(2 * self._length + 1, MOST - 1) if right == guessed else self._free
            return
        if right == guessed:
            self._length = min(2 * self._length, MOST)
        elif right < guessed:
            self._length = max(right + 1, 2)
        self._balance = max(-PAYS, min(self._balance + right - PAYS, PAYS))
        if self._balance >= 0:
            self._next_rest = REST
        elif right < PAYS:
            self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, LONGEST_REST)
