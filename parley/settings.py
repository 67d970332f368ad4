"""Every option of a turn, written once: controls, API parameters, checks and the README table are made from it."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parley import strategies
from parley.errors import BadSetting


@dataclass(frozen=True)
class Option:
    """What a reader and a checker need to know of one field of `Settings`."""

    name: str
    kind: type
    default: Any
    label: str
    help: str
    low: float | None = None  # for text: unused
    high: float | None = None  # for text: the most characters
    step: float | None = None
    lines: int = 1
    optional: bool = False  # None is a value of its own


def option(default: Any, label: str, help: str, **rest: Any) -> Any:
    """A dataclass field that carries its `Option` (all but name and kind) as metadata."""
    return dataclasses.field(default=default, metadata={"label": label, "help": help, **rest})


@dataclass(frozen=True)
class Settings:
    """One turn's options, checked: every value has its type and lies within its bounds.

    Make one with `Settings.check`; the constructor itself checks nothing.
    """

    model: str = option("", "Model", "Which model answers.", high=300)
    strategy: str = option("sampling", "Decoding strategy", "How the next token is chosen.", high=40)
    temperature: float = option(
        0.7, "Temperature", "Below 1 sharpens the distribution, above 1 flattens it.", low=0.05, high=2.0, step=0.05
    )
    top_p: float = option(
        0.9,
        "Top-p",
        "Keep the smallest set of tokens whose probabilities add up to this; 1 keeps all.",
        low=0.05,
        high=1.0,
        step=0.01,
    )
    top_k: int = option(
        50, "Top-k", "Keep this many of the most likely tokens; 0 keeps all.", low=0, high=1000, step=1
    )
    min_p: float = option(
        0.0,
        "Min-p",
        "Drop tokens less likely than this fraction of the likeliest; 0 drops none.",
        low=0.0,
        high=1.0,
        step=0.01,
    )
    repetition_penalty: float = option(
        1.0,
        "Repetition penalty",
        "Above 1 makes tokens that occurred before less likely.",
        low=1.0,
        high=2.0,
        step=0.01,
    )
    max_new_tokens: int = option(
        512, "Max new tokens", "The answer ends after at most this many tokens.", low=1, high=4096, step=1
    )
    stop: str = option(
        "", "Stop strings", "The answer ends before any of these; one a line, \\n for a line break.", high=400, lines=2
    )
    seed: int | None = option(
        None, "Seed", "Equal seeds give equal text; empty draws a fresh one.", low=0, high=2**32 - 1, optional=True
    )
    thinking: bool = option(False, "Thinking", "Let the model think before it answers.")
    system_prompt: str = option("", "System prompt", "Who the model should be, and how to answer.", high=4000, lines=3)

    @classmethod
    def check(cls, values: Mapping[str, Any], recommended: Mapping[str, Any] | None = None) -> "Settings":
        """Settings from untrusted values; None or a missing name means the model's recommendation, else the default.

        Raises `BadSetting`, with a sentence that names the option and its bounds.
        """
        if unknown := sorted(set(values) - set(OPTIONS)):
            raise BadSetting(f"There is no setting called {unknown[0]!r}. The settings are: {', '.join(OPTIONS)}.")
        fallback = {name: o.default for name, o in OPTIONS.items()} | dict(recommended or {})
        given = {name: value for name, value in values.items() if value is not None}
        checked = {name: _checked(o, given.get(name, fallback[name])) for name, o in OPTIONS.items()}
        settings = cls(**checked)
        strategies.find(settings.strategy)
        _ = settings.stop_strings
        return settings

    @property
    def stop_strings(self) -> tuple[str, ...]:
        r"""The lines of `stop`, with `\n` and `\t` read as line break and tab; at most 8 of up to 50 characters."""
        found = tuple(line.replace("\\n", "\n").replace("\\t", "\t") for line in self.stop.splitlines() if line)
        if len(found) > 8 or any(len(text) > 50 for text in found):
            raise BadSetting("Give at most 8 stop strings of at most 50 characters each, one a line.")
        return found


def _kind(field: dataclasses.Field) -> type:
    return (typing.get_args(field.type) or (field.type,))[0]  # `int | None` is an int that may be left empty


def _checked(o: Option, value: Any) -> Any:
    if value is None and o.optional:
        return None
    if o.kind is str:
        if not isinstance(value, str):
            raise BadSetting(f"{o.label} must be text.")
        if o.high is not None and len(value) > o.high:
            raise BadSetting(f"{o.label} may have at most {o.high:g} characters; this one has {len(value)}.")
        return value
    if o.kind is bool:
        if not isinstance(value, bool):
            raise BadSetting(f"{o.label} must be true or false.")
        return value
    return _checked_number(o, value)


def _checked_number(o: Option, value: Any) -> float | int:
    number = (
        f"a whole number from {o.low:.0f} to {o.high:.0f}" if o.kind is int else f"a number from {o.low} to {o.high}"
    )
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadSetting(f"{o.label} must be {number}.")
    if not o.low <= value <= o.high or (o.kind is int and value != int(value)):
        raise BadSetting(f"{o.label} must be {number}; {value:g} is not.")
    return o.kind(value)


OPTIONS: dict[str, Option] = {
    f.name: Option(name=f.name, kind=_kind(f), default=f.default, **f.metadata) for f in dataclasses.fields(Settings)
}
