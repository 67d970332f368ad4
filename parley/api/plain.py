"""Makes plain data, for JSON, of what is known of an answer."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

DIGITS = 5  # behind the point, of what a page draws


def plain(value: Any) -> Any:
    """A dataclass as a dictionary, with None for infinities, which JSON does not have."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: Any) -> Any:
    """The same in fewer bytes: numbers are rounded, and what is empty is left out."""
    if isinstance(value, dict):
        return {name: short(each) for name, each in value.items() if each or type(each) in (int, float)}
    if isinstance(value, list):
        return [short(each) for each in value]
    return round(value, DIGITS) if isinstance(value, float) else value
