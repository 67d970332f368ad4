"""Why a token was chosen: the shown chain (logits, processors, draw) gives the token that was generated."""

import functools
import math
import threading

import pytest

pytest.importorskip("openvino")

import torch
from transformers import AutoModelForCausalLM

from parley.engines.base import TurnRequest
from parley.errors import BadConversation
from parley.messages import Message
from parley.models.precision import MEASURED_ROUNDING
from parley.settings import Settings
from parley.strategies import STRATEGIES
from parley.strategies.processors.order import SETTINGS
from tests.conftest import engine
from tests.engines.openvino.asking import answer

ENGINES = {
    "floats": {"QUANTIZATION": "none"},
    "int8": {"QUANTIZATION": "int8"},
    "transformers": {"QUANTIZATION": "none", "ENGINE": "transformers"},
}
SEARCHES = (
    "beams",
    "beam_sampling",
    "diverse_beams",
    "constrained_beams",
    "contrastive",
)  # choose among several texts
# Speculative sampling draws the drafts of another model, and accepts some of them.
REPLAYED = [name for name in STRATEGIES if name not in (*SEARCHES, "speculative_sampling")]
CUT = {"temperature": 1.3, "top_k": 30, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.1}
LATE = {"xtc_probability": 0.5, "xtc_threshold": 0.05, "dynatemp_range": 0.3, "presence_penalty": 0.4}
LATE |= {"dry_multiplier": 0.8, "bad_words": "lamp", "min_new_tokens": 4, "logit_bias": '{" owl": -3}'}
MIROSTAT = {"mirostat_tau": 2.5, "frequency_penalty": 0.3}
ONES = {"force_words": "lamp", "exit_layer": 3, "watermark_key": 11, "no_repeat_ngram_size": 3}


@functools.cache
def loaded(name):
    return engine(**ENGINES[name])


def asked(seed):
    return [Message("user", f"Tell me a story about an owl and {seed + 2} lamps.")]


def values_of(strategy, seed):
    chosen = {name: value for name, value in (CUT | ONES).items() if name in STRATEGIES[strategy].uses}
    return {"strategy": strategy, "seed": seed, "max_new_tokens": 24, **chosen}


def scored(model, made, messages, values):
    request = TurnRequest.of(messages, Settings.check(values), threading.Event(), generated=made.origin.prompt_ids)
    return model.scores(request, made.ids)


def winner(score):
    """The candidate that the shown chain chooses."""
    return max(score.candidates, key=lambda each: each.after if each.quotient is None else each.quotient)


@pytest.mark.parametrize(
    "name", ["floats", *(pytest.param(n, marks=pytest.mark.slow) for n in ("int8", "transformers"))]
)
@pytest.mark.parametrize("strategy", REPLAYED)
def test_the_chain_that_is_shown_gives_each_token_of_the_answer(strategy, name):
    model = loaded(name)
    for seed in range(10):
        made = answer(model, asked(seed), **(values := values_of(strategy, seed)))
        scores = scored(model, made, asked(seed), values)
        assert [each.id for each in scores] == [winner(each).id for each in scores] == list(made.ids)
        assert len(made.ids) > 5


@pytest.mark.parametrize("values", [LATE, MIROSTAT, {**LATE, **CUT}], ids=["late", "mirostat", "all"])
def test_the_chain_shows_samplers_too(values):
    model, removed = loaded("floats"), set()
    for seed in range(5):
        given = {"strategy": "sampling", "seed": seed, "max_new_tokens": 24, "temperature": 1.2, **values}
        made = answer(model, asked(seed), **given)
        scores = scored(model, made, asked(seed), given)
        assert [each.id for each in scores] == [winner(each).id for each in scores] == list(made.ids)
        removed |= {candidate.removed_by for score in scores for candidate in score.candidates}
    assert removed & {"xtc_probability", "mirostat_tau"}
    order = made.run_record.config["order"].split(" → ")
    assert order == sorted(order, key=SETTINGS.index) and len(order) > 2


@pytest.mark.parametrize(
    ("name", "most"), [("transformers", 1e-4), ("floats", 1e-4), ("int8", MEASURED_ROUNDING["int8"])]
)
def test_probabilities_are_those_of_a_forward_pass_in_64_bits(name, most):
    model = loaded(name)
    made = answer(model, asked(1), **(values := values_of("sampling", 1)))
    scores = scored(model, made, asked(1), values)
    exact = AutoModelForCausalLM.from_pretrained(model.loaded.folder, dtype=torch.float64)
    ids = torch.tensor([[*made.origin.prompt_ids, *made.ids]])
    with torch.inference_mode():
        expected = exact(ids).logits[0, len(made.origin.prompt_ids) - 1 : -1].log_softmax(-1)
    for score, row in zip(scores, expected, strict=True):
        for each in (score, *score.candidates):
            assert math.exp(each.logprob) == pytest.approx(float(row[each.id].exp()), abs=most)
        assert score.entropy == pytest.approx(float(-(row.exp() * row).sum()), abs=10 * most)


def test_each_candidate_says_which_setting_removed_it():
    model, removed = loaded("floats"), set()
    values = {"strategy": "sampling", "seed": 3, "temperature": 1.5, "max_new_tokens": 24, "no_repeat_ngram_size": 1}
    for cut in ({"top_k": 3}, {"top_k": 0, "top_p": 0.5}, {"top_k": 0, "top_p": 1.0, "min_p": 0.3}):
        made = answer(model, asked(0), **values, **cut)
        for score in scored(model, made, asked(0), values | cut):
            for each in score.candidates:
                assert bool(each.removed_by) == (each.after == -math.inf)
                removed |= {each.removed_by}
            kept = sum(math.exp(each.after) for each in score.candidates)
            assert kept <= 1.0001 and score.after > -math.inf
    assert removed == {"", "no_repeat_ngram_size", "top_k", "top_p", "min_p"}


@pytest.mark.parametrize("strategy", SEARCHES)
def test_of_a_search_the_probabilities_of_its_answer_are_shown(strategy):
    model, values = loaded("floats"), values_of(strategy, 0)
    made = answer(model, asked(0), **values)
    scores = scored(model, made, asked(0), values)
    assert [each.id for each in scores] == list(made.ids) and all(each.after > -math.inf for each in scores)


def test_any_text_is_scored_and_its_pieces_join_to_it():
    model, text = loaded("floats"), "Ein Löwe, 3 €, and an owl."
    request = TurnRequest.of(asked(0), Settings.check({"strategy": "greedy"}), threading.Event())
    scores = model.scores(request, text)
    assert "".join(each.text for each in scores) == text
    assert min(each.rank for each in scores) >= 1 and max(each.rank for each in scores) > 10
    with pytest.raises(BadConversation, match="0 tokens"):
        model.scores(request, "")
