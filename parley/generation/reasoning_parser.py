"""Splits streamed text into the thought and the answer, and ends it at a stop string."""

from collections.abc import Sequence

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def rejoined(text: str, thought: str) -> str:
    """The raw output for this text and thought. A thought without a text stays open."""
    if not thought:
        return text
    return f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n\n{text}" if text else f"{THINK_OPEN}\n{thought}"


class ReasoningParser:
    """Takes chunks of raw output, and returns the text and the thought that may be shown.

    Only whitespace around the thought is changed. A possible start of a tag or a stop string is held back until more
    text decides. Only a thought at the start of the answer counts; a later `<think>` is text. One leading space and
    leading blank lines are dropped, but not the indentation of a first line of code. With `goes_on` (an answer that is
    continued) nothing is dropped.
    """

    def __init__(self, stop: Sequence[str] = (), in_thought: bool = False, goes_on: bool = False) -> None:
        self.stopped = False  # whether a stop string has occurred; nothing after it is shown
        self._stop_strings = tuple(stop)
        self._held = ""
        begin, go_on = (self._thought_start, self._thought) if in_thought else (self._start, self._text)
        self._state = go_on if goes_on else begin

    def feed(self, chunk: str, last: bool = False) -> tuple[str, str]:
        """The text and the thought that `chunk` completes. With `last`, also what was held back."""
        self._held += chunk
        text = thought = ""
        while self._held and not self.stopped:
            before = self._state
            more_text, more_thought = self._state(last)
            text, thought = text + more_text, thought + more_thought
            if self._state == before:
                break
        return text, thought

    def _start(self, last: bool) -> tuple[str, str]:
        head = self._held.lstrip()
        if head.startswith(THINK_OPEN):
            self._held, self._state = head[len(THINK_OPEN) :], self._thought_start
        elif last or not THINK_OPEN.startswith(head):
            self._state = self._text_start
        return "", ""

    def _thought_start(self, last: bool) -> tuple[str, str]:
        self._held = self._held.lstrip()
        if self._held:
            self._state = self._thought
        return "", ""

    def _thought(self, last: bool) -> tuple[str, str]:
        thought, closed, rest = self._held.partition(THINK_CLOSE)
        if closed:
            self._held, self._state = rest, self._text_start
            return "", thought.rstrip()
        shown = len(thought) if last else len(thought[: len(thought) - _overlap(thought, (THINK_CLOSE,))].rstrip())
        self._held = thought[shown:]
        return "", thought[:shown]

    def _text_start(self, last: bool) -> tuple[str, str]:
        text = self._held.lstrip()
        if text:
            line = self._held[: len(self._held) - len(text)].rpartition("\n")[2]
            self._held, self._state = (text if line == " " else line + text), self._text
        return "", ""

    def _text(self, last: bool) -> tuple[str, str]:
        if found := [at for at in map(self._held.find, self._stop_strings) if at >= 0]:
            self.stopped = True
            return self._held[: min(found)], ""
        shown = len(self._held) - (0 if last else _overlap(self._held, self._stop_strings))
        text, self._held = self._held[:shown], self._held[shown:]
        return text, ""


def _overlap(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the start of a mark (a tag or a stop string)."""
    longest = min(len(text), max((len(mark) for mark in marks), default=1) - 1)
    return next((n for n in range(longest, 0, -1) if any(mark.startswith(text[-n:]) for mark in marks)), 0)
