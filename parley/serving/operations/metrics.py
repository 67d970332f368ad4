"""What is counted of turns, in the text format of Prometheus: numbers and names of models, no word and no visitor.

By hand, because the format is a line for each number: a client library would be a dependency for twenty lines of it.
"""

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds to the first token
_Labels = tuple[tuple[str, str], ...]

Gauge = tuple[str, Iterable[tuple[Mapping[str, str], float]]]  # its help, and its values with their labels


class Metrics:
    """Counters that only grow. To be used in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, _Labels], float] = defaultdict(float)
        self._first_buckets = [0] * (len(BUCKETS) + 1)  # the last one is for what is slower than all
        self._first_sum = 0.0

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to the counter of this name and these labels."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += amount

    def first_token(self, seconds: float) -> None:
        """Counts the time from the request to the first text."""
        with self._lock:
            self._first_buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
            self._first_sum += seconds

    def text(self, gauges: Mapping[str, Gauge]) -> str:
        """All of it, with these numbers of the moment: by name, their help and the values with their labels."""
        with self._lock:
            counts, buckets, total = dict(self._counts), list(self._first_buckets), self._first_sum
        lines = []
        for name, help in COUNTERS.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} counter"]
            lines += [_line(name, dict(labels), value) for (of, labels), value in sorted(counts.items()) if of == name]
        lines += [f"# HELP {FIRST} Seconds from the request to the first text.", f"# TYPE {FIRST} histogram"]
        for i, bound in enumerate((*map(str, BUCKETS), "+Inf")):
            lines.append(_line(f"{FIRST}_bucket", {"le": bound}, sum(buckets[: i + 1])))
        lines += [_line(f"{FIRST}_sum", {}, total), _line(f"{FIRST}_count", {}, sum(buckets))]
        for name, (help, values) in gauges.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} gauge"]
            lines += [_line(name, labels, value) for labels, value in values]
        return "\n".join(lines) + "\n"


TURNS, TOKENS, REFUSALS = "parley_turns_total", "parley_tokens_total", "parley_refusals_total"
FIRST = "parley_first_token_seconds"
COUNTERS = {
    TURNS: "Turns that are over, by model and by how they ended.",
    TOKENS: "Tokens, by model and kind: read, taken from a cache, or made.",
    REFUSALS: "Turns that were refused before they began, by the code of the refusal.",
}
METRICS = Metrics()


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
