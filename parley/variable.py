"""One variable of the environment: its name, its values, its check and what it does. And the usual checks.

A check takes the name of the variable and its stripped text, and returns the value. It raises `BadVariable`.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from parley.errors import BadVariable

T = TypeVar("T")
MAX_DIGITS = 15  # of a number: what is longer is a mistake


@dataclass(frozen=True)
class Variable(Generic[T]):
    """One environment variable that the owner can set."""

    name: str
    values: str  # the allowed values, for people
    check: Callable[[str, str], T]  # takes the name and the stripped text, returns the value
    default: T
    help: str  # one sentence
    empty_counts: bool = False  # whether an empty text is a value; otherwise it means the default
    old_name: str = ""

    def read(self, environ: Mapping[str, str] = os.environ) -> T:
        """The checked value, or the default if the variable is not set.

        Raises `BadVariable` for a wrong value, and if the old name is set. The sentence names the variable.
        """
        if self.old_name and environ.get(self.old_name):
            raise BadVariable(f"{self.old_name} is now called {self.name}. Rename the variable.")
        text = environ.get(self.name)
        if text is None or not (text.strip() or self.empty_counts):
            return self.default
        return self.check(self.name, text.strip())

    @property
    def default_text(self) -> str:
        """The default as the owner would write it."""
        if isinstance(self.default, tuple):
            return ",".join(self.default) or "empty"
        return str(int(self.default)) if isinstance(self.default, bool) else str(self.default or "empty")


def one_of(choices: Sequence[str], otherwise: str = "") -> Callable[[str, str], str]:
    """One of these texts; `otherwise` ends the sentence for another one."""

    def check(name: str, text: str) -> str:
        if text not in choices:
            raise BadVariable(f"{name} is {text!r}. Set it to one of {', '.join(choices)}{otherwise}.")
        return text

    return check


def names(_: str, text: str) -> tuple[str, ...]:
    """The items between commas, without duplicates."""
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def pairs(name: str, text: str) -> Mapping[str, str]:
    """Pairs target=draft between commas."""
    found = {}
    for item in names(name, text):
        target, _, draft = (part.strip() for part in item.partition("="))
        if not (target and draft):
            raise BadVariable(f"{name} has the item {item!r}. Write target=draft, a comma between pairs.")
        found[target] = draft
    return found


def switch(name: str, text: str) -> bool:
    """1 or 0."""
    if text not in ("0", "1"):
        raise BadVariable(f"{name} is {text!r}. Set it to 1 or 0.")
    return text == "1"


def whole_number(low: int, unit: str = "") -> Callable[[str, str], int]:
    """A whole number from this one on."""

    def check(name: str, text: str) -> int:
        if not text.isdecimal() or not text.isascii() or len(text) > MAX_DIGITS or int(text) < low:
            number = f"a whole number{unit}" + f" of at least {low}" * (low > 1)
            raise BadVariable(f"{name} is {text!r}. The owner of this app has to set it to {number}.")
        return int(text)

    return check


def address(name: str, text: str) -> str:
    """The address of a server."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise BadVariable(f"{name} is no address. Write one such as http://127.0.0.1:8000/v1.")
    return text


def path(name: str, text: str) -> str:
    """The path of an address, without a slash at its end."""
    if text.strip("/") and not re.fullmatch(r"(/[\w.~-]+)+/?", text, re.ASCII):
        raise BadVariable(f"{name} is {text!r}. Write a path such as /parley.")
    return text.rstrip("/")


def networks(name: str, text: str) -> str:
    """Addresses of machines, or networks, between commas."""
    for each in names(name, text):
        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise BadVariable(f"{name} has {each!r}. Write addresses or networks such as 10.0.0.0/8.") from None
    return ",".join(names(name, text))
