"""Draft tokens from the text itself: what followed the last few tokens before may follow them again (Saxena, 2023).

https://github.com/apoorvumang/prompt-lookup-decoding. The number of drafts adapts: it grows after accepted drafts and
drops to none for a while after rejected ones, so that drafting never costs much.
"""

from collections.abc import Sequence

NGRAM_SIZE = 3  # tokens that must match, where drafts are not free
INITIAL_DRAFT_TOKENS, MAX_DRAFT_TOKENS = 4, 16
# A pass over some drafts takes about as long as two passes over one token. So drafting pays off from this mean number
# of accepted drafts.
BREAK_EVEN = 2
MIN_PAUSE, MAX_PAUSE = 4, 64  # tokens without drafts after a rejected draft, and after many of them


class PromptLookup:
    """The drafts for one answer. Every token of the prompt and of the answer has to be given to `append`, in order.

    `free` is the number of drafts that cost no time, because the model checks them together with the token that it
    computes anyway. With free drafts fewer matching tokens suffice, and drafting never pauses. The number of drafts
    grows to `MAX_DRAFT_TOKENS` - 1 while all are accepted.
    """

    def __init__(self, ids: Sequence[int], free: int = 0) -> None:
        self._ids: list[int] = []
        self._continuations: dict[tuple[int, ...], int] = {}  # n-gram to the index after its last occurrence
        self._match: int | None = None  # the index in `_ids` from which drafts are copied
        self._free = free
        self._ngram_sizes = range(NGRAM_SIZE, 0, -1) if free else (NGRAM_SIZE,)
        self._num_drafts, self._pause, self._next_pause = free or INITIAL_DRAFT_TOKENS, 0, MIN_PAUSE
        self._balance = 0.0  # accepted drafts less `BREAK_EVEN`, summed over the passes
        for id in ids:
            self.append(id)

    def append(self, id: int) -> None:
        """Adds the next token of the text."""
        self._ids.append(id)
        self._pause = max(0, self._pause - 1)
        self._match = None
        for size in self._ngram_sizes:
            if len(self._ids) >= size:
                ngram = tuple(self._ids[-size:])
                self._match = self._match or self._continuations.get(ngram)
                self._continuations[ngram] = len(self._ids)

    def propose(self, max_tokens: int, alone: bool = True) -> list[int]:
        """The draft tokens, at most `max_tokens`; none without a match and during a pause.

        Where the match is so near the end of the text that it has too few tokens, they are repeated. A pass that is
        not for this answer `alone` has no free rows: then drafts only go on where the last ones were all accepted.
        """
        if self._match is None or self._pause or not (alone or self._num_drafts > self._free):
            return []
        period = len(self._ids) - self._match
        return [self._ids[self._match + i % period] for i in range(min(self._num_drafts, max_tokens))]

    def record(self, drafted: int, accepted: int) -> None:
        """Adapts the number of drafts. To be called after the tokens of the pass were appended."""
        if self._free:
            self._num_drafts = (
                min(2 * self._num_drafts + 1, MAX_DRAFT_TOKENS - 1) if accepted == drafted else self._free
            )
            return
        if accepted == drafted:
            self._num_drafts = min(2 * self._num_drafts, MAX_DRAFT_TOKENS)
        elif accepted < drafted:
            self._num_drafts = max(accepted + 1, 2)
        self._balance = max(-BREAK_EVEN, min(self._balance + accepted - BREAK_EVEN, BREAK_EVEN))
        if self._balance >= 0:
            self._next_pause = MIN_PAUSE
        elif accepted < BREAK_EVEN:
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, MAX_PAUSE)
