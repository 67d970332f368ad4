"""Formats Python source to show to people: short calls on one line, longer ones with one argument on each line."""

from collections.abc import Sequence
from typing import Any


def named(**values: Any) -> list[str]:
    """The keyword arguments of a call; arguments with the value None are left out."""
    return [f"{name}={value!r}" for name, value in values.items() if value is not None]


def call(name: str, arguments: Sequence[str]) -> str:
    """The source of a call of `name`."""
    line = f"{name}({', '.join(arguments)})"
    indented = (argument.replace("\n", "\n    ") for argument in arguments)
    return line if len(line) < 70 else f"{name}(\n" + "".join(f"    {each},\n" for each in indented) + ")"


def listed(items: Sequence[Any]) -> str:
    """The source of a list, one item on each line."""
    return "[\n" + "".join(f"    {item!r},\n" for item in items) + "]" if items else "[]"
