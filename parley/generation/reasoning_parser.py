"""Splits streamed text into the thought and the answer, and ends it at a stop string or where the answer is over."""

from collections.abc import Sequence

from parley.models.reasoning_dialects import THINK, Dialect

# A mark between them is only mentioned.
_QUOTES = {"`": "`", '"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}


def rejoined(text: str, thought: str) -> str:
    """Thought and text as a message keeps them, in the dialect `THINK`. A thought without a text stays open."""
    if not thought:
        return text
    return f"{THINK.opening}{thought}{THINK.closing}{text}" if text else f"{THINK.opening}{thought}"


def split_thought(content: str) -> tuple[str, str]:
    """The text and the thought of a message: the inverse of `rejoined`."""
    return ReasoningParser(folds=False).feed(content, last=True)


class ReasoningParser:
    """Takes chunks of raw output, and returns the text and the thought that may be shown.

    Only whitespace around the thought is changed. A possible start of a mark or a stop string is held back until more
    text decides. Only a thought at the start of the answer counts; a later `<think>` is text. One leading space and
    leading blank lines are dropped, but not the indentation of a first line of code. With `goes_on` (an answer that is
    continued) nothing is dropped.

    A mark that ends a thought which nothing opened makes a thought of the text before it, unless `folds` is False.
    """

    def __init__(
        self,
        stop: Sequence[str] = (),
        in_thought: bool = False,
        goes_on: bool = False,
        dialect: Dialect = THINK,
        folds: bool = True,
    ) -> None:
        self.stopped = False  # whether a stop string has occurred; nothing after it is shown
        self.ended = False  # whether a mark has said that the answer is over; nothing after it is shown
        self.folded = False  # whether what the last call returned replaces everything that was returned before
        self._stop_strings = tuple(stop)
        self._dialect, self._closing = dialect, dialect.closing.strip()
        self._ends = dialect.ends if goes_on and folds else ()  # they count after a mark that begins the answer
        self._unopened: str | None = "" if folds and not in_thought else None  # text that may yet become a thought
        self._held = ""
        begin, go_on = (self._thought_start, self._thought) if in_thought else (self._start, self._text)
        self._state = go_on if goes_on else begin

    def feed(self, chunk: str, last: bool = False) -> tuple[str, str]:
        """The text and the thought that `chunk` completes. With `last`, also what was held back."""
        self._held += chunk
        self.folded = False
        text = thought = ""
        while self._held and not self.stopped and not self.ended:
            before, folded = self._state, self.folded
            more_text, more_thought = self._state(last)
            if self.folded and not folded:
                text = thought = ""
            text, thought = text + more_text, thought + more_thought
            if self._state == before:
                break
        return text, thought

    def _start(self, last: bool) -> tuple[str, str]:
        closing = () if self._unopened is None else (self._closing,)
        mark = self._mark((*self._dialect.openings, *self._dialect.answers, *closing), last)
        if mark in self._dialect.openings:
            self._state, self._unopened = self._thought_start, None
        elif mark in closing:
            self._close_thought()
        elif mark is not None:
            self._state = self._text_start
            self._ends = self._dialect.ends if mark else ()
        return "", ""

    def _thought_start(self, last: bool) -> tuple[str, str]:
        self._held = self._held.lstrip()
        if self._held:
            self._state = self._thought
        return "", ""

    def _thought(self, last: bool) -> tuple[str, str]:
        thought, closed, rest = self._held.partition(self._closing)
        if closed:
            self._held = rest
            self._close_thought()
            return "", thought.rstrip()
        shown = len(thought) if last else len(thought[: len(thought) - _overlap(thought, (self._closing,))].rstrip())
        self._held = thought[shown:]
        return "", thought[:shown]

    def _close_thought(self) -> None:
        self._state, self._ends, self._unopened = self._after_thought, self._dialect.ends, None

    def _after_thought(self, last: bool) -> tuple[str, str]:
        again = self._dialect.openings if self._dialect.restart else ()
        mark = self._mark((*again, *self._dialect.answers), last)
        if mark is not None:
            self._state = self._thought_start if mark in again else self._text_start
        return "", "\n\n" if mark in again else ""

    def _mark(self, marks: Sequence[str], last: bool) -> str | None:
        """The mark at the start of the held text, which it takes away; empty for none, None for not yet known."""
        head = self._held.lstrip()
        if not last and any(mark != head and mark.startswith(head) for mark in marks):
            return None
        mark = next((mark for mark in marks if head.startswith(mark)), "")
        if mark:
            self._held = head[len(mark) :]
        return mark

    def _text_start(self, last: bool) -> tuple[str, str]:
        text = self._held.lstrip()
        if text:
            line = self._held[: len(self._held) - len(text)].rpartition("\n")[2]
            self._held, self._state = (text if line == " " else line + text), self._text
        return "", ""

    def _text(self, last: bool) -> tuple[str, str]:
        marks = (*self._stop_strings, *self._ends)
        found = [at for at in map(self._held.find, marks) if at >= 0]
        end = min(found, default=len(self._held))
        closing = self._unopened_closing(last)
        if 0 <= closing < end:
            thought = f"{self._unopened}{self._held[:closing]}".strip()
            self._held, self.folded = self._held[closing + len(self._closing) :], True
            self._close_thought()
            return "", thought
        if found:
            self.stopped = any(self._held.startswith(mark, end) for mark in self._stop_strings)
            self.ended = not self.stopped
            return self._held[:end], ""
        marks = marks if self._unopened is None else (*marks, *(self._closing + quote for quote in _QUOTES.values()))
        shown = len(self._held) - (0 if last else _overlap(self._held, marks))
        text, self._held = self._held[:shown], self._held[shown:]
        if self._unopened is not None:
            self._unopened += text
        return text, ""

    def _unopened_closing(self, last: bool) -> int:
        """Where a mark ends a thought that nothing opened; -1 where none does, or where the next character decides."""
        at = -1 if self._unopened is None else self._held.find(self._closing)
        while at >= 0:
            before, after = f"{self._unopened}{self._held[:at]}", self._held[at + len(self._closing) :]
            quote = _QUOTES.get(before[-1:])
            mentioned = quote and (after.startswith(quote) or not (after or last))
            if not mentioned and not any(mark in before for mark in self._dialect.openings):
                return at
            at = self._held.find(self._closing, at + 1)
        return at


def _overlap(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the start of a mark (a tag or a stop string)."""
    longest = min(len(text), max((len(mark) for mark in marks), default=1) - 1)
    if not longest or not any(mark[:1] in text[-longest:] for mark in marks):  # as for most tokens
        return 0
    return next((n for n in range(longest, 0, -1) if any(mark.startswith(text[-n:]) for mark in marks)), 0)
