"""How many tokens a second all turns of a model generate together."""

import threading
import time
from collections import deque

WINDOW_SECONDS = 10.0  # over which the rate is taken


class TokenRate:
    """Counts tokens, and tells how many a second there were lately. Any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[float] = deque()  # time.monotonic() of each token

    def count(self) -> None:
        """Counts a token that was generated now."""
        with self._lock:
            self._times.append(time.monotonic())
            self._drop_old()

    @property
    def per_second(self) -> float:
        """The tokens a second over the last `WINDOW_SECONDS`, or since the first token in them."""
        with self._lock:
            self._drop_old()
            return len(self._times) / max(1.0, time.monotonic() - self._times[0]) if self._times else 0.0

    def _drop_old(self) -> None:
        while self._times and self._times[0] < time.monotonic() - WINDOW_SECONDS:
            self._times.popleft()
