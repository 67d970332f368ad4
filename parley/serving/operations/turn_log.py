"""What the owner is told of each turn: a line in the log and some counts, without a word of what was said."""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parley.config import LOG_LEVEL
from parley.errors import ChatError, TurnRefused
from parley.serving.operations.metrics import METRICS, TOKENS, TURNS

if TYPE_CHECKING:  # app.py imports this first, and these import pydantic
    from parley.events import ColumnEvent, Delta

_log = logging.getLogger("parley.turns")


def configure() -> None:
    """Sends the log to stderr. Call it at the start, before the libraries are imported.

    Where no terminal shows them, the libraries draw no progress bars.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("parley").setLevel(LOG_LEVEL.read().upper())
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers heeds it too


@dataclass
class TurnRecord:
    """What is noted of a turn, or of a comparison, while it runs."""

    models: Sequence[str]
    entered: float = field(default_factory=time.monotonic)
    began: float | None = None  # when it was admitted
    first: float | None = None  # when its first text came
    ending: str = ""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("read", "cached", "made"), 0))

    def saw(self, event: "Delta | ColumnEvent") -> None:
        """Takes what the engine yields."""
        delta = event.delta if hasattr(event, "delta") else event
        if delta is None:
            return
        if self.first is None and (delta.text or delta.thought):
            self.first = time.monotonic()
            METRICS.first_token(self.first - self.entered)
        self.ending = delta.finish or self.ending
        if delta.usage and delta.usage.unit == "token":
            used = delta.usage
            self.counts["read"] += used.prompt_tokens - used.cached_tokens
            self.counts["cached"] += used.cached_tokens
            self.counts["made"] += used.new_tokens

    def write(self, error: BaseException | None) -> None:
        """Counts the turn, which is over, and writes its line."""
        ending, now = _ending(error) or self.ending or "stopped", time.monotonic()
        model = self.models[0] if len(set(self.models)) == 1 else "several"
        METRICS.add(TURNS, model=model, ending=ending)
        for kind, count in self.counts.items():
            METRICS.add(TOKENS, count, model=model, kind=kind)
        values = {"model": model, "turns": len(self.models), "ending": ending, **self.counts}
        times = {"waited": (self.began or now), "first": self.first, "seconds": now}
        seconds = {name: at and round(at - self.entered, 3) for name, at in times.items()}
        _log.info(json.dumps(values | seconds))


def _ending(error: BaseException | None) -> str:
    """How a turn ended that came to no end by itself; empty for one that did."""
    if error is None:
        return ""
    if isinstance(error, TurnRefused):
        return error.code
    if isinstance(error, ChatError):
        return "refused"
    return "failed" if isinstance(error, Exception) else "left"  # a generator that is closed, a cancelled task
