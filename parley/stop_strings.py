"""How stop strings are written in one line each: with escapes, so that each text can be written."""

import re

ESCAPES = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}  # the character after a backslash, and what both mean
_ESCAPE = re.compile(r"\\([\\nrt])")


def escape(text: str) -> str:
    """The text as one line."""
    return "".join(next((f"\\{name}" for name, meaning in ESCAPES.items() if meaning == c), c) for c in text)


def unescape(line: str) -> str:
    """The text that the line stands for. A backslash before any other character is itself."""
    return _ESCAPE.sub(lambda match: ESCAPES[match[1]], line)
