"""The GPU time that an answer is asked for: from settings, prompt and the size of the model."""

import pytest

from parley import strategies
from parley.config import MAX_GPU_SECONDS
from parley.errors import ChatError
from parley.events import Answer
from parley.messages import Message
from parley.models import registry
from parley.serving import gpu_budget, turn
from parley.settings import Settings

NAMES = ("budgie", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-8B")
SMALL, MIDDLE, LARGE = (registry.find(name, {"MODEL_IDS": name}) for name in NAMES)


def asked(row=MIDDLE, prompt="Hello!", placed=0, **values):
    settings = Settings.check({"model": row.name, "strategy": "greedy", "max_new_tokens": 256} | values)
    return gpu_budget.estimate(row, [Message("user", prompt)], settings, placed)


def test_short_answers_ask_for_little_and_nothing_for_more_than_the_longest(monkeypatch):
    assert asked(max_new_tokens=16) < 5
    assert asked(max_new_tokens=64) < asked(max_new_tokens=256) < asked(max_new_tokens=1024)
    assert asked(max_new_tokens=4096) == MAX_GPU_SECONDS.default
    monkeypatch.setenv("MAX_GPU_SECONDS", "30")
    assert asked(max_new_tokens=4096) == 30


@pytest.mark.parametrize("told", ["2 min", "0", "-5", "1.5"])
def test_a_longest_time_that_is_no_number_of_seconds_is_refused(told, monkeypatch):
    monkeypatch.setenv("MAX_GPU_SECONDS", told)
    with pytest.raises(ChatError, match=f"MAX_GPU_SECONDS is '{told}'. .* a whole number of seconds"):
        asked()


def test_what_takes_longer_asks_for_more():
    assert asked(SMALL) < asked(LARGE)
    assert asked(prompt="a word " * 100) < asked(prompt="a word " * 20_000)
    assert asked(strategy="beams", num_beams=2) < asked(strategy="beams", num_beams=8)
    assert asked() < asked(guidance_scale=2.0)
    long = "a word " * 20_000
    assert asked(prompt=long, guidance_scale=2.0) < asked(prompt=long, guidance_scale=2.0, negative_prompt="Be rude.")
    assert asked(placed=0) < asked(placed=21_000_000_000), "a fresh worker moves all models to the GPU"


def test_columns_that_run_together_ask_for_less_than_one_after_the_other():
    question = [Message("user", "Hello!")]

    def together(*rows):
        turns = [
            (row, question, Settings.check({"model": row.name, "strategy": "greedy", "max_new_tokens": 256}))
            for row in rows
        ]
        return gpu_budget.estimate_together(turns, 0)

    assert asked() <= together(MIDDLE, MIDDLE) < 2 * asked()
    assert together(MIDDLE, MIDDLE) < together(MIDDLE, LARGE), "two models take turns"
    assert together(*[MIDDLE] * 3) < together(*[MIDDLE] * 6) < 6 * asked()


def test_every_strategy_has_a_cost():
    for name in strategies.STRATEGIES:
        assert asked(strategy=name) >= asked() or name == "prompt_lookup"


def test_a_turn_tells_what_it_was_asked_for():
    settings = Settings.check({"model": "budgie", "strategy": "greedy", "max_new_tokens": 200})
    question = [Message("user", "Tell me a story about an owl.")]
    placed = turn.POOL.placed_bytes
    made = Answer.of(turn.reply_on_zerogpu(turn.reply_in_worker, "asks for time", question, settings))
    assert made.usage.gpu_seconds == asked(SMALL, question[0].content, placed=placed, max_new_tokens=200)


class Refusal(Exception):
    """As the client of `spaces` raises one."""

    def __init__(self, left, kind="free "):
        self.message = (
            f"You have exceeded your {kind}ZeroGPU quota (120s requested vs. {left}s left). Try again in 1:00."
        )


@pytest.mark.parametrize(
    ("size", "left", "seconds"), [("", 37, 37), ("", 10, 10), ("", 9, 0), ("xlarge", 37, 18), ("xlarge", 19, 0)]
)
def test_what_is_left_is_affordable_if_it_is_enough_for_an_answer(size, left, seconds, monkeypatch):
    monkeypatch.setenv("ZEROGPU_SIZE", size)
    for kind in ("", "free ", "Pro "):
        assert gpu_budget.affordable_seconds(Refusal(left, kind)) == seconds
    assert gpu_budget.affordable_seconds(ValueError("37s left")) == 0


def test_where_seconds_are_counted_one_and_a_half_times_no_more_than_what_is_left_is_asked_for(monkeypatch):
    monkeypatch.setattr(gpu_budget, "_duration_factor", lambda: 1.5)
    for left in range(10, 121):
        seconds = gpu_budget.affordable_seconds(Refusal(left))
        unused_quota = left - seconds  # less than one requested second counts for
        assert 0 <= unused_quota < 1.5
        assert round(1.5 * gpu_budget.duration("a run", [], None, "", seconds)) == seconds
