"""How a search came to its answer: the rivals of beams, the terms of contrastive search, layers, and draft tokens."""

import math
import threading
from dataclasses import replace

import pytest

pytest.importorskip("openvino")

from parley.engines import reading_engine
from parley.engines.base import TurnRequest
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.conftest import Passes, draft
from tests.engines.openvino.asking import answer
from tests.generation.scoring.test_token_scores import asked, loaded, values_of

BEAMS = [name for name, row in STRATEGIES.items() if row.record == "on_beams"]
SPECULATIVE = [name for name, row in STRATEGIES.items() if row.record == "on_pass"]
ENGINES = ["floats", *(pytest.param(n, marks=pytest.mark.slow) for n in ("int8", "transformers"))]


def looked_at(model, made, values, **changed):
    """The choices of this answer to the question `asked(1)`."""
    settings = Settings.check(values)
    helper = draft() if STRATEGIES[settings.strategy].drafts else None
    request = TurnRequest.of(asked(1), settings, threading.Event(), helper, generated=made.origin.prompt_ids)
    return model.choices(replace(request, **changed), made.ids)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("strategy", BEAMS)
def test_beams_make_a_tree_whose_chosen_path_is_the_answer(strategy, name):
    model, values = loaded(name), values_of(strategy, 1)
    made = answer(model, asked(1), **values)
    choices = looked_at(model, made, values)
    assert choices.notes == ()
    chosen = [[node for node in step if node.chosen] for step in choices.beams]
    path = [nodes[0].id for nodes in chosen if nodes and nodes[0].id >= 0]
    assert path == list(made.ids)[: len(path)] and len(path) >= len(made.ids) - 1  # an end token may have no node
    for before, step in zip(((), *choices.beams), choices.beams, strict=False):
        assert 1 <= len(step) <= 16
        for node in step:
            parent = before[node.parent] if before else None
            assert node.parent == -1 if parent is None else not parent.finished and parent.group == node.group
            if node.chosen and before:
                assert before[node.parent].chosen
    assert max(len(step) for step in choices.beams) >= 3
    assert [each.rivals for each in choices.answer] == list(choices.beams[: len(made.ids)])
    groups = {node.group for step in choices.beams for node in step}
    assert groups == ({0, 1} if strategy == "diverse_beams" else {0})


def test_the_last_hypotheses_have_the_scores_that_the_answer_showed():
    model, values = loaded("floats"), values_of("beams", 1)
    made = answer(model, asked(1), **values)
    shown = {round(each.score, 6) for each in made.beams if not each.finished}
    assert shown == {round(node.score, 6) for node in looked_at(model, made, values).beams[-1] if not node.finished}


@pytest.mark.parametrize("name", ENGINES)
def test_contrastive_search_takes_the_largest_difference_of_its_two_terms(name):
    model, values = loaded(name), values_of("contrastive", 1)
    made = answer(model, asked(1), **values)
    settings = Settings.check(values)
    for score in looked_at(model, made, values).answer:
        tried = [each for each in score.candidates if each.value is not None]
        assert len(tried) == settings.candidates
        assert max(tried, key=lambda each: each.value).id == score.id
        for each in tried:
            alpha = settings.penalty_alpha
            assert each.value == pytest.approx((1 - alpha) * math.exp(each.after) - alpha * each.similarity, abs=1e-4)


def test_dola_shows_both_layers():
    model, values = loaded("floats"), values_of("dola", 1)
    made = answer(model, asked(1), **values)
    for score in looked_at(model, made, values).answer:
        assert 0 <= score.early_layer < model.loaded.layers
        kept = [each for each in score.candidates if not each.removed_by]
        # What it is chosen by is the difference of both layers, but for a constant.
        differences = [each.logprob - each.early - each.after for each in kept]
        assert max(differences) - min(differences) < 1e-3


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("strategy", SPECULATIVE)
def test_each_pass_says_what_was_drafted_and_accepted(strategy, name):
    model, values = loaded(name), values_of(strategy, 1) | {"max_new_tokens": 40}
    made = answer(model, asked(1), **values)
    choices = looked_at(model, made, values)
    passes = choices.passes
    assert sum(each.accepted for each in passes) <= made.usage.accepted
    assert sum(len(each.drafts) for each in passes) == made.usage.drafted
    text = "".join("".join(each.drafts[: each.accepted]) + each.token for each in passes)
    assert text == "".join(model.loaded.tokenizer.decode([each]) for each in made.ids)
    drafted = [each.drafted for each in choices.answer]
    assert drafted.count(True) == sum(each.accepted for each in passes)
    assert None not in drafted and len(passes) <= len(made.ids)


def test_a_search_that_comes_to_other_words_says_so():
    model, values = loaded("floats"), values_of("beams", 1)
    made = answer(model, asked(1), **values)
    choices = looked_at(model, replace(made, ids=made.ids[:3] + made.ids[:3]), values)
    assert choices.beams == () and choices.notes == (reading_engine.DIFFERS,)


def test_an_answer_that_nobody_asks_about_costs_no_pass_more():
    model = loaded("floats")
    for strategy in ("beams", "contrastive", "prompt_lookup"):
        values = values_of(strategy, 1)
        with Passes(model.loaded.model) as passes:
            made = answer(model, asked(1), **values)
            alone = passes.count
            looked_at(model, made, values)
        with Passes(model.loaded.model) as again:
            answer(model, asked(1), **values)
        assert again.count == alone
