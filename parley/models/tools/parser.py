"""Splits the text of an answer into what is said and the calls of tools, while it grows."""

from collections.abc import Sequence
from dataclasses import dataclass

from parley.messages import ToolCall
from parley.models.tools.dialects import ToolDialect


@dataclass(frozen=True)
class ToolText:
    """A text, as far as it is known, and the calls in it that are whole."""

    text: str
    calls: tuple[ToolCall, ...] = ()


def split_calls(answer: str, dialect: ToolDialect, over: bool) -> ToolText:
    """The text and the calls of an answer so far. `over` says that nothing more comes.

    The text of a longer answer begins with that of a shorter one, and so do its calls: what may be the beginning of a
    mark is held back, and a call that is not whole. What cannot be read is text, once the answer is over.
    """
    said, calls, rest = "", list[ToolCall](), answer
    is_json = answer.lstrip().startswith(("{", "["))
    if not dialect.opening and (is_json or not any(mark in answer for mark in dialect.openings)):
        return _bare(answer, dialect, over)
    while True:
        at, mark = min(((rest.find(m), m) for m in dialect.openings if m in rest), default=(-1, ""))
        if at < 0:
            shown = len(rest) - (0 if over else _overlap(rest, dialect.openings))
            return ToolText(_trimmed(said + rest[:shown], bool(calls), over), tuple(calls))
        before, body = rest[:at], rest[at + len(mark) :]
        found, end = _read(body, dialect)
        inside, closed, after = body[:end], body[end:][: len(dialect.closing)], body[end + len(dialect.closing) :]
        if not over and (not closed or found is None):
            return ToolText(_trimmed(said + before, True, over), tuple(calls))
        if found is None:
            said += before + mark + inside + closed
        else:
            said, calls = said + before, calls + found
        rest = after
        if not closed:
            return ToolText(_trimmed(said, bool(calls), over), tuple(calls))


def _read(body: str, dialect: ToolDialect) -> tuple[list[ToolCall] | None, int]:
    """The calls that a text begins with, None if it has none, and the place of the mark after them.

    The mark may stand in a text that is given to a tool. Without a mark the calls go to the end.
    """
    first = end = body.find(dialect.closing) if dialect.closing else -1
    while end >= 0:
        if found := dialect.read(body[:end]):
            return found, end
        end = body.find(dialect.closing, end + 1)
    found = dialect.read(body)
    return (None, first) if found is None and first >= 0 else (found, len(body))


def _bare(answer: str, dialect: ToolDialect, over: bool) -> ToolText:
    """Calls without a mark: the whole answer is JSON."""
    if not answer.lstrip().startswith(("{", "[")):
        shown = 0 if not answer.strip() and not over else len(answer)
        shown -= 0 if over else _overlap(answer[:shown], dialect.openings)
        return ToolText(answer[:shown])
    if not over:
        return ToolText("")
    found = dialect.read(answer)
    return ToolText(answer) if found is None else ToolText("", tuple(found))


def _trimmed(text: str, calls: bool, over: bool) -> str:
    """The text without the blank space before calls; while it grows, blank space at its end is held back."""
    return text.rstrip() if calls or not over else text


def _overlap(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of a text may be the start of a mark."""
    longest = min(len(text), max((len(mark) for mark in marks), default=1) - 1)
    return next((n for n in range(longest, 0, -1) if any(mark.startswith(text[-n:]) for mark in marks)), 0)
