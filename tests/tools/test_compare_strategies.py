"""The comparison of the strategies: its measures on texts with known values, and one small run of the whole."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
import torch

from parley.generation.prompt import render_prompt
from parley.messages import build_messages
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tools import compare_strategies as compare


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0),
        ("Yo ho!", 0),
        ("one two three four five", 0),
        ("Arr, arr! Arr arr arr.", 2 / 3),  # three 3-grams, all alike
        ("a b c a b c", 1 / 4),  # of abc, bca, cab, abc the last
    ],
)
def test_repetition_is_the_share_of_3_grams_said_before(text, share):
    assert compare.repetition(text) == pytest.approx(share)


def test_equal_samples_have_no_diversity():
    assert compare.diversity(["A bird sings."]) == 0
    assert compare.diversity(["A bird sings."] * 4) == pytest.approx(0)
    assert compare.diversity(["Paris", "Paris"]) == pytest.approx(0)
    assert compare.diversity(["🦜", "🦜"]) == 0


def test_samples_without_a_pair_of_words_in_common_have_full_diversity():
    assert compare.diversity(["a bird sings", "the cat sleeps"]) == 1
    assert compare.diversity(["red blue", "blue red"]) == 1


def test_diversity_is_what_bleu_leaves():
    # Either way two of three words are shared and one of two pairs; the lengths are equal, so nothing is taken off.
    assert compare.diversity(["a bird sings", "a bird sleeps"]) == pytest.approx(1 - math.sqrt(2 / 3 * 1 / 2))
    # The short one is found whole in the long one, but is half as long; of the long one 2/4 words and 1/3 pairs are.
    short, long = math.exp(1 - 4 / 2), math.sqrt(2 / 4 * 1 / 3)
    assert compare.diversity(["a bird", "a bird sings well"]) == pytest.approx(1 - (short + long) / 2)


def test_likelihood_is_the_mean_of_the_log_probabilities_one_token_after_the_other(budgie):
    messages = build_messages([], "What is top-p sampling?")
    prompt = render_prompt(budgie.loaded, messages, Settings.check({})).ids
    text = "Top-p keeps the most likely tokens."
    ids, logs = prompt, []
    for token in budgie.loaded.tokenizer.encode(f" {text}", add_special_tokens=False):
        with torch.no_grad():
            logs.append(budgie.loaded.model(ids).logits[0, -1].softmax(-1)[token].log().item())
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert compare.likelihood(budgie.loaded, prompt, text) == pytest.approx(sum(logs) / len(logs), abs=1e-4)


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    return tmp_path_factory.mktemp("figures") / "new" / "strategies.svg"


def run(capsys, figure, **more):
    few = {"prompt": "How are you?", "samples": 2, "max-new-tokens": 6, "figure": figure} | more
    compare.main([f"--{name}={value}" for name, value in few.items()])
    return capsys.readouterr().out


@pytest.mark.slow
def test_every_strategy_answers_with_its_speed_and_stands_in_the_figure(capsys, figure):
    printed = run(capsys, figure)
    texts = {element.text for element in ET.parse(figure).iter("{http://www.w3.org/2000/svg}text")}
    for strategy in STRATEGIES.values():
        assert re.search(rf"(?m)^{strategy.label}: \d+ tokens/s, \d+\.\d\d times Greedy\n    \S", printed)
        assert strategy.label in texts


def test_what_the_model_cannot_run_is_left_out_with_the_reason(capsys, figure, tiny, monkeypatch):
    monkeypatch.setenv("MODEL_IDS", str(tiny))
    printed = run(capsys, figure, model=tiny.name)
    assert re.search(r"(?m)^Assisted decoding: .*so Assisted decoding does not work with it\. Choose another", printed)
    assert "Assisted decoding: " not in re.sub(r"(?m)^.* Choose another strategy\.$", "", printed)
    assert "Assisted decoding" not in figure.read_text() and "Greedy" in figure.read_text()


def test_equal_rows_give_an_equal_figure(tmp_path):
    rows = [
        compare.Measured("Greedy", False, ([0.0], [0.0], [-0.5])),
        compare.Measured("DoLa", True, ([1], [1], [-1])),
    ]
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for path in (first, second):
        compare.draw(rows, "caption", path)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_as_a_program_it_refuses_a_model_without_probabilities_in_one_sentence():
    program = [sys.executable, "-m", "tools.compare_strategies", "--model", "parrot"]
    ran = subprocess.run(program, cwd=compare.ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 2
    assert ran.stderr.endswith("has no probabilities to measure. Choose another model.\n")


def test_a_request_that_no_strategy_can_answer_ends_with_a_sentence(capsys, figure):
    for few, sentence in ({"samples": 1}, "must be 2 or more"), ({"max-new-tokens": 0}, "Max new tokens must be"):
        with pytest.raises(SystemExit):
            run(capsys, figure, **few)
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(capsys, figure, prompt="owl " * 2000)
    refused = capsys.readouterr()
    assert "The reasons are printed above" in refused.err and "Greedy: This message needs" in refused.out


def test_the_figure_of_the_readme_is_small_and_names_every_strategy():
    text = (compare.ROOT / "docs" / "strategies.svg").read_text()
    assert len(text) < 60_000
    assert [s.label for s in STRATEGIES.values() if f">{s.label}<" not in text] == []
