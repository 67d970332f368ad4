"""Whether the app is well: it makes a token, on the CPU, so that no seconds of ZeroGPU are spent."""

import logging
import threading
import time
import uuid
from collections.abc import Callable

from parley.messages import Message
from parley.models import registry
from parley.models.catalogue.rows import TOY
from parley.models.spec import ModelSpec
from parley.serving import turn
from parley.settings import Settings

MAX_AGE_SECONDS = 60.0  # of the last token
FRESH_SECONDS = 15.0  # after which a new one is made when somebody asks
PATIENCE_SECONDS = 5.0  # for which whoever asks waits for it
ILL = "No token was made within the last 60 s. Look into the log, and restart the app."
_log = logging.getLogger("parley")


def make_token() -> None:
    """Makes one token with the default model if it is here and on the CPU, else with Budgie."""
    settings = Settings.check({"strategy": "greedy", "max_new_tokens": 1})
    spec = _model()
    settings = settings.model_copy(update={"model": spec.name})
    for _ in turn.answer_of(spec, uuid.uuid4().hex, [Message("user", "Hello!")], settings):
        pass


def _model() -> ModelSpec:
    spec = registry.default()
    loaded = getattr(turn.POOL.at_hand(spec), "loaded", None)
    return spec if loaded and loaded.plan.device == "cpu" and not turn.needs_zerogpu(spec) else TOY


class Health:
    """Makes a token when somebody asks and the last one is not fresh; one at a time."""

    def __init__(self, make: Callable[[], None] = make_token) -> None:
        self._make = make
        self._made: float | None = None  # when the last one was
        self._lock = threading.Lock()
        self._done: threading.Event | None = None  # of the one that is being made

    def is_well(self) -> bool:
        """Whether a token was made within the last minute. Waits for a new one, but not long."""
        with self._lock:
            if self._age() < FRESH_SECONDS:
                return True
            done = self._done
            if done is None:
                done = self._done = threading.Event()
                threading.Thread(target=self._run, args=(done,), daemon=True, name="canary").start()
        done.wait(PATIENCE_SECONDS)
        return self._age() < MAX_AGE_SECONDS

    def _run(self, done: threading.Event) -> None:
        try:
            self._make()
            self._made = time.monotonic()
        except Exception:
            _log.exception("no token could be made to see whether the app is well")
        finally:
            self._done = None
            done.set()

    def _age(self) -> float:
        return float("inf") if self._made is None else time.monotonic() - self._made


HEALTH = Health()
