"""What the browser keeps of an answer beside its text, so that the answer can be made again or gone on with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from parley.events import Answer, Usage

MAX_TOKENS = 1_000_000  # of a stored answer; what a model reads is checked by its engine


@dataclass(frozen=True)
class StoredAnswer:
    """A stored answer, as it comes back from a browser. Its values are checked where they are used."""

    settings: Mapping[str, Any] = field(default_factory=dict)  # with the seed; empty where nothing was generated
    prompt_ids: Sequence[int] = ()
    ids: Sequence[int] = ()  # empty while it was generated
    given: Sequence[int] = ()  # with which it had to begin
    fingerprint: str = ""
    finish: str = ""
    usage: Usage | None = None
    before: Answer = field(default_factory=Answer)  # the text and the thought with which it began

    @property
    def generated(self) -> list[int]:
        """The tokens of the conversation up to its end."""
        return [*self.prompt_ids, *self.ids]


def write(answer: Answer, before: Answer) -> dict[str, Any] | None:
    """For the browser; None where nothing is known of the answer yet. `before` is the answer that it continues.

    What is known at the end comes then only.
    """
    if not (origin := answer.origin):
        return None
    usage = answer.usage
    values = {**asdict(origin), "finish": answer.finish, "before": {"text": before.text, "thought": before.thought}}
    values["system_fingerprint"] = values.pop("fingerprint")
    return values | ({"ids": answer.ids, "usage": asdict(usage) if usage else None} if answer.finish else {})


def read(values: Any) -> StoredAnswer:
    """A stored answer that comes back; an empty one where there is none, or it does not have the form."""
    try:
        before = (values or {}).get("before") or {}
        return StoredAnswer(
            dict(values.get("settings") or {}),
            _ids(values.get("prompt_ids") or []),
            _ids(values.get("ids") or []),
            _ids(values.get("given") or []),
            str(values.get("system_fingerprint", "")),
            str(values.get("finish") or ""),
            _usage(values.get("usage")),
            Answer(text=str(before.get("text", "")), thought=str(before.get("thought", ""))),
        )
    except (AttributeError, TypeError, ValueError):
        return StoredAnswer()


def _usage(values: Any) -> Usage | None:
    if not values:
        return None
    usage = Usage(**values)
    if not all(isinstance(each, int | float | None) for name, each in asdict(usage).items() if name != "unit"):
        raise ValueError("These are no figures.")
    return usage if usage.unit in ("token", "chunk") else replace(usage, unit="token")


def _ids(values: Any) -> list[int]:
    if not isinstance(values, list) or len(values) > MAX_TOKENS or any(type(each) is not int for each in values):
        raise ValueError("These are no tokens.")
    return values
