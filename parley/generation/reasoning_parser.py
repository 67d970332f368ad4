"""Decoded text, piece by piece, split into thought and answer, and ended at a stop string."""

from collections.abc import Sequence

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def rejoined(text: str, thought: str) -> str:
    """What a model writes for this text after this thought; a thought without a text has not been closed yet."""
    if not thought:
        return text
    return f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n\n{text}" if text else f"{THINK_OPEN}\n{thought}"


class ReasoningParser:
    """Feed it pieces; it gives back what may be shown, exact but for the blank space round the thought.

    What may be the beginning of a mark is held back until it is decided. A thought is only looked for at the start of
    the answer: a `<think>` further on is the model's own text. One leading space and leading blank lines are dropped,
    the indentation of a first line of code is not. One that goes on from an earlier answer drops nothing.
    """

    def __init__(self, stop: Sequence[str] = (), in_thought: bool = False, goes_on: bool = False) -> None:
        self.stopped = False  # a stop string has occurred: nothing after it is shown
        self._stop = tuple(stop)
        self._held = ""
        begin, go_on = (self._thought_start, self._thought) if in_thought else (self._start, self._text)
        self._read = go_on if goes_on else begin

    def feed(self, piece: str, last: bool = False) -> tuple[str, str]:
        """The text and the thought that `piece` completes; `last` gives out what was held back."""
        self._held += piece
        text = thought = ""
        while self._held and not self.stopped:
            before = self._read
            more_text, more_thought = self._read(last)
            text, thought = text + more_text, thought + more_thought
            if self._read == before:
                break
        return text, thought

    def _start(self, last: bool) -> tuple[str, str]:
        head = self._held.lstrip()
        if head.startswith(THINK_OPEN):
            self._held, self._read = head[len(THINK_OPEN) :], self._thought_start
        elif last or not THINK_OPEN.startswith(head):
            self._read = self._text_start
        return "", ""

    def _thought_start(self, last: bool) -> tuple[str, str]:
        self._held = self._held.lstrip()
        if self._held:
            self._read = self._thought
        return "", ""

    def _thought(self, last: bool) -> tuple[str, str]:
        thought, closed, rest = self._held.partition(THINK_CLOSE)
        if closed:
            self._held, self._read = rest, self._text_start
            return "", thought.rstrip()
        shown = len(thought) if last else len(thought[: len(thought) - _overlap(thought, (THINK_CLOSE,))].rstrip())
        self._held = thought[shown:]
        return "", thought[:shown]

    def _text_start(self, last: bool) -> tuple[str, str]:
        text = self._held.lstrip()
        if text:
            line = self._held[: len(self._held) - len(text)].rpartition("\n")[2]
            self._held, self._read = (text if line == " " else line + text), self._text
        return "", ""

    def _text(self, last: bool) -> tuple[str, str]:
        if found := [at for at in map(self._held.find, self._stop) if at >= 0]:
            self.stopped = True
            return self._held[: min(found)], ""
        shown = len(self._held) - (0 if last else _overlap(self._held, self._stop))
        text, self._held = self._held[:shown], self._held[shown:]
        return text, ""


def _overlap(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a mark."""
    longest = min(len(text), max((len(mark) for mark in marks), default=1) - 1)
    return next((n for n in range(longest, 0, -1) if any(mark.startswith(text[-n:]) for mark in marks)), 0)
