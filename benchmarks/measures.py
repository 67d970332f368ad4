"""How things are measured: each beside what it is compared with, in turn, so that a busy machine slows both."""

import contextlib
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, TextIteratorStreamer

from parley import strategies
from parley.engines.base import Engine, TurnRequest
from parley.engines.local_engine import LocalEngine
from parley.events import Answer, Usage
from parley.generation import generation_config
from parley.generation.loaded_model import LoadedModel
from parley.generation.prompt import Prompt, render_prompt
from parley.messages import Message
from parley.models import hardware
from parley.settings import Settings
from parley.strategies.decoders.prompt_lookup import PromptLookup

STORY = "Tell me of the owl, the river and the lamp in the window. "
ENGLISH = Path(__file__).with_name("english.txt").read_text("utf-8")
ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` says how many times as fast ours is, how many times the memory it takes, or how many times
    as likely it makes a token.
    """

    name: str
    model: str
    unit: str
    ours: float
    baseline: float | None = None  # None: there is nothing to compare with
    ratio: float | None = None  # the median over the rounds, and the spread
    low: float | None = None
    high: float | None = None


RATIOS: dict[str, Callable[[float, float], float]] = {
    "s": lambda ours, theirs: theirs / ours,
    "nats/token": lambda ours, theirs: math.exp(ours - theirs),
}


def ratio(unit: str, ours: float, theirs: float) -> float:
    """See `Row`."""
    return RATIOS.get(unit, lambda ours, theirs: ours / theirs)(ours, theirs)


def row(name: str, model: str, unit: str, pairs: Sequence[tuple[float, float]]) -> Row:
    """A figure from what was measured in each round: ours, and what it is compared with."""
    ratios = [ratio(unit, *pair) for pair in pairs]
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    return Row(name, model, unit, *map(rounded, (ours, theirs, statistics.median(ratios), min(ratios), max(ratios))))


def alone(name: str, model: str, unit: str, figures: Sequence[float]) -> Row:
    """The median of what was measured in each round, with nothing to compare it with."""
    return Row(name, model, unit, rounded(statistics.median(figures)))


def rounded(figure: float) -> float:
    """To four digits."""
    return float(f"{figure:.4g}")


def in_turn(rounds: int, timed: Mapping[str, Callable[[], float]]) -> list[dict[str, float]]:
    """What each gives in so many rounds, after a first one that only warms up."""
    return [{name: each() for name, each in timed.items()} for _ in range(rounds + 1)][1:]


def beside(taken: Sequence[Mapping[str, float]], ours: str, theirs: str) -> list[tuple[float, float]]:
    """Two columns of what `in_turn` gives."""
    return [(each[ours], each[theirs]) for each in taken]


class Timed(TextIteratorStreamer):
    """The stock streamer, which notes when tokens came and how many."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self.times: list[float] = []
        self.count = 0

    def put(self, value: torch.Tensor) -> None:
        """As the stock streamer's; the first call brings the prompt."""
        self.count += value.numel() if self.times else 0
        self.times.append(time.perf_counter())
        super().put(value)


def settings(new: int, **values: object) -> Settings:
    """For greedy search, where the values say nothing else."""
    return Settings.check({"strategy": "greedy", "max_new_tokens": new} | values)


def prompt(loaded: LoadedModel, messages: Sequence[Message], new: int) -> Prompt:
    """What the model reads."""
    return render_prompt(loaded, messages, settings(new))


def ask(
    engine: Engine,
    messages: Sequence[Message],
    new: int,
    session: str = "",
    draft: LocalEngine | None = None,
    **values: object,
) -> Answer:
    """An answer of ours, with what it cost."""
    return Answer.of(
        engine.stream(TurnRequest.of(messages, settings(new, **values), threading.Event(), draft, session))
    )


def cost(answer: Answer) -> Usage:
    """What an answer cost; raises `RuntimeError` where nothing says it."""
    if answer.usage is None:
        raise RuntimeError("The engine ended an answer without saying what it cost.")
    return answer.usage


def first_token(usage: Usage) -> float:
    """Seconds to the first token; raises `RuntimeError` where there was none."""
    if usage.time_to_first_token is None:
        raise RuntimeError("An answer has no token: ask otherwise.")
    return usage.time_to_first_token


def decode_speed(usage: Usage) -> float:
    """Tokens a second after the first; raises `RuntimeError` where there were too few to tell."""
    if usage.tokens_per_second is None:
        raise RuntimeError("An answer is too short to tell how fast it was: ask otherwise.")
    return usage.tokens_per_second


def stock(
    loaded: LoadedModel, messages: Sequence[Message], new: int, draft: LoadedModel | None = None, **values: object
) -> Usage:
    """What a usual Space does: `generate` in a thread with the stock streamer, the whole history read each time.

    The strategies are those of transformers, with the arguments that ours have. Raises what `generate` raises, and
    `RuntimeError` where torch does not have all threads, for then the comparison would be unfair.
    """
    asked = settings(new, **values)
    rendered = render_prompt(loaded, messages, asked)
    ids, planned = (
        rendered.ids,
        generation_config.plan_generation(loaded, strategies.find(asked.strategy), asked, rendered, draft),
    )
    streamer = Timed(loaded.tokenizer)
    given: dict[str, Any] = {"generation_config": GenerationConfig(**planned.config), "streamer": streamer}
    given |= {"assistant_model": draft.model} if draft else {}
    if draft and planned.cross_tokenizer:
        given |= {"tokenizer": loaded.tokenizer, "assistant_tokenizer": draft.tokenizer}

    def generate() -> int:
        try:
            loaded.model.generate(ids, attention_mask=torch.ones_like(ids), **given)
        finally:
            streamer.end()
        return torch.get_num_threads()

    began = time.perf_counter()
    with ThreadPoolExecutor(1) as worker:
        ran = worker.submit(generate)
        for _ in streamer:
            pass
    if (threads := ran.result()) != hardware.cpu_threads():
        raise RuntimeError(f"torch had {threads} threads for plain generate, not {hardware.cpu_threads()}")
    return Usage(ids.shape[1], streamer.count, streamer.times[1] - began, streamer.times[-1] - began)


@contextlib.contextmanager
def without_drafts() -> Iterator[None]:
    """Nothing is drafted in greedy search and sampling, which only a benchmark can ask for."""
    with mock.patch.object(PromptLookup, "propose", lambda self, max_tokens, **_: []):
        yield


@contextlib.contextmanager
def endless(*models: LoadedModel) -> Iterator[None]:
    """Answers of these models are as long as they may be, so that all that are compared have the same length."""
    with contextlib.ExitStack() as stack:
        for each in models:
            stack.enter_context(mock.patch.object(each.model.generation_config, "eos_token_id", None))
        yield


def history(loaded: LoadedModel, tokens: int) -> list[Message]:
    """A conversation that takes at least so many tokens with one more question, in turns of about fifty."""
    turns: list[Message] = []
    while prompt(loaded, [*turns, Message("user", STORY)], 1).length < tokens:
        turns += [Message("user", STORY), Message("assistant", f"{len(turns)}: {STORY}")]
    return turns


def question(text: str = STORY) -> list[Message]:
    """A conversation of one message."""
    return [Message("user", text)]
