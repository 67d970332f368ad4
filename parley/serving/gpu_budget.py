"""How many seconds of a GPU an answer is asked for: from its settings, its prompt, and how fast the model has been."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from parley import strategies
from parley.engines.base import Usage
from parley.errors import ChatError
from parley.messages import Message
from parley.models.hub import ModelRow
from parley.settings import Settings

SAFETY = 1.5  # an answer may take so many times as long as expected
OVERHEAD = 2.0  # seconds for all that is neither reading nor writing
LONGEST = 120  # seconds that one answer asks for at most, unless MOST_GPU_SECONDS says otherwise
BYTES_A_TOKEN = 3  # of the prompt in UTF-8: fewer than in English (4), about as many as in other languages
PARAMETERS = 4e9  # where they are not known
LOAD = 3e9  # bytes a second from the disk to the GPU, in a fresh process
WEIGHT = 0.3  # of the newest measurement

# Seconds a token, beside greedy search, before anything is measured: several rows at once cost little on a GPU, a
# second forward pass as much as the first. Whoever guesses ahead may guess wrong.
COSTS: Mapping[str, Callable[[Settings], float]] = {
    "tokens": lambda s: 2.0 if s.guidance_scale > 1 else 1.0,
    "watermark": lambda s: 1.5,
    "live_beams": lambda s: 1.2 + 0.1 * s.num_beams,
    "constrained_beams": lambda s: 1.5 + 0.2 * s.num_beams,
    "diverse_beams": lambda s: 1.2 + 0.2 * s.beam_groups * s.beams_per_group,
    "contrastive": lambda s: 1.5 + 0.1 * s.candidates,
    "dola": lambda s: 1.5,
    "assisted": lambda s: 1.5,
    "universal_assisted": lambda s: 2.0,
    "prompt_lookup": lambda s: 1.2,
    "early_exit": lambda s: 1.5,
}


@dataclass(frozen=True)
class Speed:
    """Tokens a second."""

    reading: float
    writing: float  # of greedy search


def prior(row: ModelRow) -> Speed:
    """What is expected of a model that has not been measured yet, by its size.

    Each token takes the time to launch some hundred kernels, and to read all weights once.
    """
    billions = (row.parameters or PARAMETERS) / 1e9
    return Speed(reading=15_000 / (0.3 + billions), writing=1 / (0.03 + 0.002 * billions))


class GpuTime:
    """What is known of the models' speed. Belongs to the process that asks for GPUs, not to those that have one."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Speed] = {}  # by model and strategy, the last measured at the end
        self._start: float | None = None  # seconds until a fresh process can answer

    def ask(self, row: ModelRow, messages: Sequence[Message], settings: Settings, placed: int) -> int:
        """The seconds to ask for; a fresh process would first move `placed` bytes to the GPU.

        Raises `ChatError` for a `MOST_GPU_SECONDS` that is no number of seconds.
        """
        speed = self.speed(row, settings)
        read = sum(len(m.content.encode()) / BYTES_A_TOKEN for m in messages) * (2 if settings.steers_away else 1)
        answer = read / speed.reading + settings.max_new_tokens * _cost(settings) / speed.writing
        start = placed / LOAD if self._start is None else self._start
        return min(_longest(), math.ceil(OVERHEAD + start + SAFETY * answer))

    def speed(self, row: ModelRow, settings: Settings) -> Speed:
        """As measured with this strategy, else with another one, else as expected."""
        same = [speed for (model, _), speed in self._known.items() if model == row.name]
        return self._known.get((row.name, settings.strategy)) or (same[-1] if same else prior(row))

    def learn(self, row: ModelRow, settings: Settings, usage: Usage) -> None:
        """Takes what an answer cost."""
        if usage.started:
            self._start = usage.started
        if usage.new_tokens < 8 or not usage.tokens_per_second or not usage.first_piece:
            return  # too little to measure
        old, read = self.speed(row, settings), usage.prompt_tokens - usage.cached_tokens
        new = Speed(read / usage.first_piece, usage.tokens_per_second * _cost(settings))
        if read < 256:  # the first token of a short prompt says little of how fast a long one is read
            new = Speed(old.reading, new.writing)
        key = (row.name, settings.strategy)
        if self._known.pop(key, None):
            new = Speed(_mixed(old.reading, new.reading), _mixed(old.writing, new.writing))
        self._known[key] = new


def _longest() -> int:
    told = os.environ.get("MOST_GPU_SECONDS", "").strip() or str(LONGEST)
    if not told.isdecimal() or int(told) == 0:
        raise ChatError(
            f"MOST_GPU_SECONDS is {told!r}. The owner of this app has to set it to a whole number of seconds."
        )
    return int(told)


def _mixed(old: float, new: float) -> float:
    return (1 - WEIGHT) * old + WEIGHT * new


def _cost(settings: Settings) -> float:
    return COSTS[strategies.find(settings.strategy).runs](settings)
