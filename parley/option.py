"""The description of a setting: what its control, its check and its documentation need, read from a pydantic field."""

import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Hints:
    """Metadata of a field for its control on the page."""

    step: float | None = None  # of the slider; None: the number is typed
    lines: int = 1
    rare: bool = False  # folded away on the page
    neutral: Any = None  # the value without effect, where it is not the default
    off: bool = False  # whether the neutral value is shown as "off"


@dataclass(frozen=True)
class Copied:
    """Metadata of a field whose value is copied to the `GenerationConfig` field of the same name in transformers."""

    unused: Any = None  # the value of that field for a strategy that does not use the setting
    none_if_neutral: bool = False  # whether the neutral value is copied as None


@dataclass(frozen=True)
class Carried:
    """Metadata of a field that is no setting: it goes with the settings to the engine."""


@dataclass(frozen=True)
class Option:
    """The description of one field of `Settings`; made from the field."""

    name: str
    kind: type
    default: Any
    label: str
    help: str
    low: Any  # the minimum; None for text and booleans
    high: Any  # the maximum; for text the maximum number of characters; None for booleans
    step: float | None
    lines: int
    optional: bool  # whether None is a valid value
    choices: tuple[str, ...]  # for text: the allowed values; empty: any text
    rare: bool
    neutral: Any  # the value without effect
    off: bool  # whether that value is shown as "off"
    copied: Copied | None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its values."""
        if self.choices:
            return {"enum": list(self.choices)}
        bounds = ("maxLength",) if self.kind is str else ("minimum", "maximum")
        values = (self.high,) if self.kind is str else (self.low, self.high)
        kind = {int: "integer", float: "number", bool: "boolean"}.get(self.kind, "string")
        return {"type": kind} | {n: v for n, v in zip(bounds, values, strict=True) if v is not None}


def option_of(name: str, field: FieldInfo) -> Option:
    """The description of this field."""
    hints = next((mark for mark in field.metadata if isinstance(mark, Hints)), Hints())
    kinds = ("ge", "le", "max_length")
    bounds = {kind: getattr(mark, kind) for mark in field.metadata for kind in kinds if hasattr(mark, kind)}
    arguments = typing.get_args(field.annotation)  # of `int | None` or of `Literal`
    choices = arguments if typing.get_origin(field.annotation) is Literal else ()
    kind: Any = str if choices else arguments[0] if arguments else field.annotation
    return Option(
        name=name,
        kind=kind,
        default=field.default,
        label=field.title or "",
        help=field.description or "",
        low=bounds.get("ge"),
        high=max(map(len, choices)) if choices else bounds.get("le", bounds.get("max_length")),
        step=hints.step,
        lines=hints.lines,
        optional=type(None) in arguments,
        choices=choices,
        rare=hints.rare,
        neutral=field.default if hints.neutral is None else hints.neutral,
        off=hints.off,
        copied=next((mark for mark in field.metadata if isinstance(mark, Copied)), None),
    )


def is_number(value: Any) -> bool:
    """Whether the value is a finite number. Booleans are not; integers may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
