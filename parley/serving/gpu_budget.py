"""How many seconds of a GPU an answer is asked for: from its settings, its prompt, and how fast the model has been."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from parley import strategies
from parley.config import MAX_GPU_SECONDS
from parley.events import Usage
from parley.messages import Message
from parley.models.spec import ModelSpec
from parley.settings import Settings

SAFETY = 1.5  # an answer may take so many times as long as expected
OVERHEAD = 2.0  # seconds for all that is neither reading nor writing
BYTES_A_TOKEN = 3  # of the prompt in UTF-8: fewer than in English (4), about as many as in other languages
PARAMETERS = 4e9  # where they are not known
LOAD = 3e9  # bytes a second from the disk to the GPU, in a fresh process
WEIGHT = 0.3  # of the newest measurement


@dataclass(frozen=True)
class Speed:
    """Tokens a second."""

    reading: float
    writing: float  # of greedy search


def prior(spec: ModelSpec) -> Speed:
    """What is expected of a model that has not been measured yet, by its size.

    Each token takes the time to launch some hundred kernels, and to read all weights once.
    """
    billions = (spec.parameters or PARAMETERS) / 1e9
    return Speed(reading=15_000 / (0.3 + billions), writing=1 / (0.03 + 0.002 * billions))


class GpuBudget:
    """What is known of the models' speed. Belongs to the process that asks for GPUs, not to those that have one."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Speed] = {}  # by model and strategy, the last measured at the end
        self._start: float | None = None  # seconds until a fresh process can answer

    def estimate(self, spec: ModelSpec, messages: Sequence[Message], settings: Settings, placed: int) -> int:
        """The seconds to ask for; a fresh process would first move `placed` bytes to the GPU.

        Raises `BadVariable` for a `MAX_GPU_SECONDS` that is no number of seconds.
        """
        speed = self.speed(spec, settings)
        read = sum(len(m.content.encode()) / BYTES_A_TOKEN for m in messages) * (2 if settings.steers_away else 1)
        answer = read / speed.reading + settings.max_new_tokens * _cost(settings) / speed.writing
        start = placed / LOAD if self._start is None else self._start
        return min(MAX_GPU_SECONDS.read(), math.ceil(OVERHEAD + start + SAFETY * answer))

    def speed(self, spec: ModelSpec, settings: Settings) -> Speed:
        """As measured with this strategy, else with another one, else as expected."""
        same = [speed for (model, _), speed in self._known.items() if model == spec.name]
        return self._known.get((spec.name, settings.strategy)) or (same[-1] if same else prior(spec))

    def record(self, spec: ModelSpec, settings: Settings, usage: Usage) -> None:
        """Takes what an answer cost."""
        if usage.started:
            self._start = usage.started
        if usage.new_tokens < 8 or not usage.tokens_per_second or not usage.time_to_first_token:
            return  # too little to measure
        old, read = self.speed(spec, settings), usage.prompt_tokens - usage.cached_tokens
        new = Speed(read / usage.time_to_first_token, usage.tokens_per_second * _cost(settings))
        if read < 256:  # the first token of a short prompt says little of how fast a long one is read
            new = Speed(old.reading, new.writing)
        key = (spec.name, settings.strategy)
        if self._known.pop(key, None):
            new = Speed(_mixed(old.reading, new.reading), _mixed(old.writing, new.writing))
        self._known[key] = new


def _mixed(old: float, new: float) -> float:
    return (1 - WEIGHT) * old + WEIGHT * new


def _cost(settings: Settings) -> float:
    return strategies.find(settings.strategy).cost(settings)
