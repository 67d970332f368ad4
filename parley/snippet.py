"""Python source for a reader: calls on one line where they are short, else one argument a line."""

from collections.abc import Sequence
from typing import Any


def named(**values: Any) -> list[str]:
    """The keyword arguments of a call; what is None is left out."""
    return [f"{name}={value!r}" for name, value in values.items() if value is not None]


def call(name: str, arguments: Sequence[str]) -> str:
    """A call."""
    line = f"{name}({', '.join(arguments)})"
    indented = (argument.replace("\n", "\n    ") for argument in arguments)
    return line if len(line) < 70 else f"{name}(\n" + "".join(f"    {each},\n" for each in indented) + ")"


def listed(items: Sequence[Any]) -> str:
    """A list, one item a line."""
    return "[\n" + "".join(f"    {item!r},\n" for item in items) + "]" if items else "[]"
