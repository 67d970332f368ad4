"""Estimates the GPU seconds that a turn requests from ZeroGPU, by its settings, its prompt and its model's size."""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

from parley.config import MAX_GPU_SECONDS, ZEROGPU_SIZE
from parley.messages import Message
from parley.models.spec import ModelSpec
from parley.settings import Settings

SAFETY_FACTOR = 1.5  # an answer may take this many times as long as estimated
COMPANY_SHARE = 0.2  # of its time alone that a turn adds beside another one of its model
OVERHEAD_SECONDS = 2.0  # for everything except prefill and decoding
BYTES_PER_TOKEN = 3  # of the prompt in UTF-8: 4 in English, about 3 in other languages
DEFAULT_PARAMETERS = 4e9  # for a model whose size is not known
MIN_SECONDS_LEFT = 10  # fewer are too short for an answer, after the models are on the GPU
_LEFT = re.compile(r"You have exceeded your .*quota \(\d+s requested vs\. (\d+)s left\)")
LOAD_BYTES_PER_SECOND = 3e9  # from the disk to the GPU, in a fresh process


def estimate(spec: ModelSpec, messages: Sequence[Message], settings: Settings, placed_bytes: int) -> int:
    """The GPU seconds to request, at most `MAX_GPU_SECONDS`. A new process first moves `placed_bytes` to the GPU.

    Raises `BadVariable` if `MAX_GPU_SECONDS` is not a number of seconds.
    """
    return _requested(_answer_seconds(spec, messages, settings), placed_bytes)


def estimate_together(turns: Sequence[tuple[ModelSpec, Sequence[Message], Settings]], placed_bytes: int) -> int:
    """The same for turns that run at the same time in one process, and are scored afterwards.

    The turns of one model share its passes. Models take turns.
    """
    answers: defaultdict[ModelSpec, list[float]] = defaultdict(list)
    scoring = 0.0
    for spec, messages, settings in turns:
        answers[spec].append(_answer_seconds(spec, messages, settings))
        scoring += _reading_seconds(spec, settings.max_new_tokens)
    seconds = [max(each) + COMPANY_SHARE * (sum(each) - max(each)) for each in answers.values()]
    return _requested(sum(seconds) + scoring, placed_bytes)


def estimate_choices(
    spec: ModelSpec, messages: Sequence[Message], settings: Settings, num_tokens: float, placed_bytes: int
) -> int:
    """The same for an answer of so many tokens that is read again. A search runs once more for it."""
    prompt = sum(len(m.content.encode()) for m in messages) / BYTES_PER_TOKEN
    again = _answer_seconds(spec, messages, settings) if settings.effective_strategy.record else 0.0
    return _requested(again + _reading_seconds(spec, prompt + num_tokens), placed_bytes)


def estimate_reading(spec: ModelSpec, num_tokens: float, placed_bytes: int) -> int:
    """The same for texts of so many tokens together that are read once more."""
    return _requested(_reading_seconds(spec, num_tokens), placed_bytes)


def _answer_seconds(spec: ModelSpec, messages: Sequence[Message], settings: Settings) -> float:
    num_prompts = 2 if settings.steers_away else 1
    tools = len(json.dumps(settings.tools)) if settings.tools else 0
    prompt_tokens = num_prompts * (tools + sum(len(m.content.encode()) for m in messages)) / BYTES_PER_TOKEN
    prompt_tokens += len(settings.prompt_ids)
    decode_tokens = settings.max_new_tokens * settings.effective_strategy.cost(settings)
    # The time for a token is that of launching some hundred kernels and reading all weights once.
    return _reading_seconds(spec, prompt_tokens) + decode_tokens * (0.03 + 0.002 * _billions(spec))


def _reading_seconds(spec: ModelSpec, tokens: float) -> float:
    return tokens * (0.3 + _billions(spec)) / 15_000


def _billions(spec: ModelSpec) -> float:
    return (spec.parameters or DEFAULT_PARAMETERS) / 1e9


def _requested(answers: float, placed_bytes: int) -> int:
    load = placed_bytes / LOAD_BYTES_PER_SECOND
    return _counted(min(MAX_GPU_SECONDS.read(), math.ceil(OVERHEAD_SECONDS + load + SAFETY_FACTOR * answers)))


def affordable_seconds(refusal: Exception) -> int:
    """The GPU seconds to request in place of those that were refused, if the `spaces` client names what is left.

    0 where it names none, or too few. A second of the size "xlarge" is counted twice.
    """
    found = _LEFT.search(str(getattr(refusal, "message", "")))
    left = int(found[1]) // (2 if ZEROGPU_SIZE.read() == "xlarge" else 1) if found else 0
    return _counted(left) if left >= MIN_SECONDS_LEFT else 0


def _counted(seconds: int) -> int:
    """The largest number of seconds up to this one that `duration` can request; at least 1."""
    factor = _duration_factor()
    return max(1, round(factor * int(seconds / factor)))


def duration(run_id: str, messages: Sequence[Message], settings: Settings, session: str, seconds: int) -> int:
    """The argument of `spaces.GPU` with which ZeroGPU gives a turn the `seconds` of `estimate`.

    It takes the arguments of a turn, of a comparison, or of an answer that is read again, which are as many. The
    client of `spaces` multiplies every duration by a factor, which is 1.5 for the size "large" on the cards of today.
    """
    return max(1, round(seconds / _duration_factor()))


def _duration_factor() -> float:
    if not os.environ.get("SPACES_ZERO_GPU"):
        return 1.0
    from spaces.zero import (
        client,  # it is there with every version of `spaces` on ZeroGPU, and needs `spaces` imported
    )

    return client.get_duration_seconds(timedelta(seconds=1), ZEROGPU_SIZE.read() or None)
