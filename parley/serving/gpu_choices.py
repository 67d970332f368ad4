"""Why tokens were chosen and what may follow, also where a model runs on ZeroGPU: in one call, with a GPU."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parley.errors import ChatError, NotSupported
from parley.events import Choices, NextToken, TokenScore
from parley.messages import Message
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.serving import gpu_budget, turn
from parley.settings import Settings

TOO_LATE = "The GPU time was over before the answer was read again. Look at a shorter answer."


@dataclass(frozen=True)
class Asked:
    """An answer, as a text or as its exact tokens, and what is shown of it; see `turn.choices`."""

    answer: str | Sequence[int]
    generated: Sequence[int] = ()
    given: Sequence[int] = ()
    prompt: bool = True

    def seconds(self, spec: ModelSpec, messages: Sequence[Message], settings: Settings, placed_bytes: int) -> int:
        """The GPU seconds that it takes. How many tokens a text has is estimated."""
        tokens = len(self.answer) / (gpu_budget.BYTES_PER_TOKEN if isinstance(self.answer, str) else 1)
        return gpu_budget.estimate_choices(spec, messages, settings, tokens, placed_bytes)

    def read(
        self, messages: Sequence[Message], settings: Settings, cancel: threading.Event | None, *, on_gpu: bool
    ) -> Choices:
        """Reads it in this process."""
        return turn.choices(
            messages,
            settings,
            self.answer,
            self.generated,
            given=self.given,
            prompt=self.prompt,
            cancel=cancel,
            on_gpu=on_gpu,
        )


@dataclass(frozen=True)
class ScoredAnswer:
    """The exact tokens of an answer, and what it was made from."""

    messages: Sequence[Message]
    settings: Settings
    answer: Sequence[int]
    generated: Sequence[int]


@dataclass(frozen=True)
class AskedScores:
    """Answers of one model whose tokens are scored; see `turn.scores`. No search runs again for it."""

    answers: Sequence[ScoredAnswer]
    shown: int

    def seconds(self, spec: ModelSpec, messages: Sequence[Message], settings: Settings, placed_bytes: int) -> int:
        """The GPU seconds that all of them take."""
        tokens = sum(len(each.generated) + len(each.answer) for each in self.answers)
        return gpu_budget.estimate_reading(spec, tokens, placed_bytes)

    def read(
        self, messages: Sequence[Message], settings: Settings, cancel: threading.Event | None, *, on_gpu: bool
    ) -> list[list[TokenScore]]:
        """Reads them in this process, one after the other."""
        return [
            turn.scores(
                each.messages,
                each.settings,
                each.answer,
                each.generated,
                shown=self.shown,
                cancel=cancel,
                on_gpu=on_gpu,
            )
            if each.answer
            else []
            for each in self.answers
        ]


@dataclass(frozen=True)
class AskedNext:
    """The tokens so far of an answer, and what is typed after them; see `turn.next_token`."""

    given: Sequence[int]
    generated: Sequence[int] = ()
    forced: str = ""
    guess: str = ""

    def seconds(self, spec: ModelSpec, messages: Sequence[Message], settings: Settings, placed_bytes: int) -> int:
        """The GPU seconds that it takes."""
        tokens = len(self.given) + len(self.forced) / gpu_budget.BYTES_PER_TOKEN
        return gpu_budget.estimate_choices(spec, messages, settings, tokens, placed_bytes)

    def read(
        self, messages: Sequence[Message], settings: Settings, cancel: threading.Event | None, *, on_gpu: bool
    ) -> NextToken:
        """Reads them in this process."""
        return turn.next_token(
            messages,
            settings,
            self.given,
            self.generated,
            forced=self.forced,
            guess=self.guess,
            cancel=cancel,
            on_gpu=on_gpu,
        )


Question = Asked | AskedScores | AskedNext
Found = Choices | list[list[TokenScore]] | NextToken
GpuWorker = Callable[[Question, Sequence[Message], Settings, str, int], Any]
_workers: list[GpuWorker] = []  # the one of app.py, which has the decorator of `spaces`


def run_on_gpu_by(worker: GpuWorker) -> GpuWorker:
    """A decorator for the function that runs `choices_in_worker` with a GPU."""
    _workers[:] = [worker]
    return worker


def gpu_seconds(asked: Question, messages: Sequence[Message], settings: Settings) -> int:
    """The GPU seconds that this requests; 0 where it needs none. Raises `ChatError`."""
    spec = registry.find(settings.model)
    if not turn.needs_zerogpu(spec):
        return 0
    return asked.seconds(spec, messages, settings, turn.POOL.placed_bytes)


def choices(
    asked: Asked, messages: Sequence[Message], settings: Settings, cancel: threading.Event | None = None
) -> Choices:
    """See `turn.choices`. Raises `ChatError`, and what the `spaces` client raises where there is no GPU.

    A call of ZeroGPU does not end before its answer is read, whether `cancel` is set or not.
    """
    found: Choices = _read(asked, messages, settings, cancel)
    return found


def next_token(
    asked: AskedNext, messages: Sequence[Message], settings: Settings, cancel: threading.Event | None = None
) -> NextToken:
    """See `turn.next_token`; on ZeroGPU each look is a call. Raises as `choices`."""
    found: NextToken = _read(asked, messages, settings, cancel)
    return found


def scores(
    answers: Sequence[ScoredAnswer], shown: int, cancel: threading.Event | None = None
) -> list[list[TokenScore]]:
    """The scores of all these answers of one model, see `turn.scores`; on ZeroGPU in one call. Raises as `choices`."""
    if not any(each.answer for each in answers):
        return [[] for _ in answers]
    found: list[list[TokenScore]] = _read(AskedScores(answers, shown), (), answers[0].settings, cancel)
    return found


def _read(asked: Question, messages: Sequence[Message], settings: Settings, cancel: threading.Event | None) -> Any:
    seconds = gpu_seconds(asked, messages, settings)
    if not seconds:
        return asked.read(messages, settings, cancel, on_gpu=False)
    for spec in filter(None, turn.models_of(settings)):
        turn.POOL.check(spec)
    if not _workers:
        raise NotSupported(f"{registry.find(settings.model).label} has no GPU here. Choose a model of the CPU.")
    try:
        found = _workers[0](asked, messages, settings, "", seconds)
    except Exception as refusal:
        left = gpu_budget.affordable_seconds(refusal)
        if not left:
            raise
        found = _workers[0](asked, messages, settings, "", left)
    if isinstance(found, ChatError):
        raise found
    return found


def choices_in_worker(
    asked: Question, messages: Sequence[Message], settings: Settings, seconds: int
) -> Found | ChatError:
    """The same in a forked process. It ends before `seconds` are over. An exception would end the process."""
    cancel = threading.Event()
    left = turn.forked_at() + seconds - turn.STOP_MARGIN_SECONDS - time.monotonic()
    timer = threading.Timer(left, cancel.set)
    timer.start()
    try:
        return asked.read(messages, settings, cancel, on_gpu=True)
    except Exception as error:
        if cancel.is_set():
            return ChatError(TOO_LATE)
        if isinstance(error, ChatError):
            return error
        raise
    finally:
        timer.cancel()
