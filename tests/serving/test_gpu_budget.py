"""The GPU time that an answer is asked for: from settings, prompt and measured speed."""

import pytest

from parley import strategies
from parley.config import MAX_GPU_SECONDS
from parley.errors import ChatError
from parley.events import Answer, Usage
from parley.messages import Message
from parley.models import registry
from parley.serving import gpu_budget, turn
from parley.serving.gpu_budget import GpuBudget
from parley.settings import Settings

NAMES = ("budgie", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-8B")
SMALL, MIDDLE, LARGE = (registry.find(name, {"MODEL_IDS": name}) for name in NAMES)


def asked(row=MIDDLE, prompt="Hello!", known=None, placed=0, **values):
    settings = Settings.check({"model": row.name, "strategy": "greedy", "max_new_tokens": 256} | values)
    return (known or GpuBudget()).estimate(row, [Message("user", prompt)], settings, placed)


def usage(**values):
    return Usage(**{"prompt_tokens": 20, "new_tokens": 101, "time_to_first_token": 0.5, "seconds": 2.5} | values)


def learnt(**values):
    known = GpuBudget()
    known.record(MIDDLE, Settings.check({"model": MIDDLE.name, "strategy": "greedy"}), usage(**values))
    return known


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


def test_every_strategy_has_a_cost():
    for name in strategies.STRATEGIES:
        assert asked(strategy=name) >= asked() or name == "prompt_lookup"


def test_measured_speed_takes_the_place_of_the_expected_one():
    fast = learnt(new_tokens=401)  # 200 tokens a second
    slow = learnt(new_tokens=21)  # 10
    assert asked(known=fast) < asked() < asked(known=slow)
    assert asked(known=slow) == pytest.approx(gpu_budget.OVERHEAD + gpu_budget.SAFETY * 25.6, abs=1)
    assert asked(LARGE, known=fast) == asked(LARGE), "another model is not known by it"
    assert asked(known=fast, strategy="dola") == pytest.approx(gpu_budget.OVERHEAD + 1.5 * 1.5 * 256 / 200, abs=1)


def test_reading_is_measured_on_long_prompts_only_and_without_what_was_known():
    long = "a word " * 20_000
    slow = learnt(prompt_tokens=4000, time_to_first_token=8.0, seconds=10.0)
    assert asked(prompt=long, known=slow) > asked(prompt=long, known=learnt())
    cached = learnt(prompt_tokens=4000, cached_tokens=3990, time_to_first_token=8.0, seconds=10.0)
    assert asked(prompt=long, known=cached) == asked(prompt=long, known=learnt())


def test_the_start_of_a_fresh_process_is_measured_too():
    assert asked(known=learnt(started=9.0)) == asked(known=learnt()) + 9
    assert asked(placed=10**12, known=learnt(started=1.0)) == asked(known=learnt()) + 1


def test_what_is_too_short_to_measure_and_one_slow_answer_change_little():
    assert asked(known=learnt(new_tokens=2)) == asked()
    assert asked(known=learnt(new_tokens=0, time_to_first_token=None)) == asked()
    known = learnt()
    steady = asked(known=known)
    known.record(MIDDLE, Settings.check({"strategy": "greedy"}), usage(new_tokens=21))
    assert steady < asked(known=known) < 2 * steady


def test_a_turn_tells_what_it_was_asked_for_and_the_next_one_asks_by_what_it_took(monkeypatch):
    monkeypatch.setattr(turn, "GPU_BUDGET", GpuBudget())
    settings = Settings.check({"model": "budgie", "strategy": "greedy", "max_new_tokens": 200})
    question = [Message("user", "Tell me a story about an owl.")]
    first, second = (
        sum(turn.reply_on_zerogpu(turn.reply_in_worker, run_id, question, settings), Answer()).usage
        for run_id in ("first", "second")
    )
    placed = sum(turn.POOL.loaded.values())
    assert first.gpu_seconds == asked(SMALL, question[0].content, placed=placed, max_new_tokens=200)
    assert second.gpu_seconds < first.gpu_seconds
