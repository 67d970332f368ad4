"""Token by token: N steps give the tokens of one run, and other settings need no other pass."""

import math
import threading

import pytest

pytest.importorskip("openvino")

from parley.engines.base import TurnRequest
from parley.errors import BadConversation, BadSetting
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.conftest import Passes, draft
from tests.engines.openvino.asking import answer
from tests.generation.scoring.test_token_scores import asked, loaded, values_of

STEPS = 12
# Speculative sampling draws for drafts too: its next token is that of plain sampling, and its text is another one.
ONE_TEXT = [n for n, row in STRATEGIES.items() if row.record != "on_beams" and n != "speculative_sampling"]


def looker(model, values, messages=None):
    """What follows given tokens."""

    def look(given=(), forced="", guess="", **changed):
        settings = Settings.check(values | changed)
        helper = draft() if STRATEGIES[settings.strategy].drafts else None
        request = TurnRequest.of(messages or asked(1), settings, threading.Event(), helper, given=given)
        return model.next_token(request, forced, guess)

    return look


@pytest.mark.parametrize(
    "name", ["floats", *(pytest.param(n, marks=pytest.mark.slow) for n in ("int8", "transformers"))]
)
@pytest.mark.parametrize("strategy", ONE_TEXT)
def test_so_many_steps_give_the_tokens_of_one_run(strategy, name):
    model, values = loaded(name), values_of(strategy, 3) | {"max_new_tokens": STEPS}
    look, ids = looker(model, values), ()
    for _ in range(STEPS):
        ids = (*ids, look(ids).score.id)
    assert ids == answer(model, asked(1), **values).ids


def test_other_settings_need_no_pass_and_change_what_is_left():
    model = loaded("floats")
    look = looker(model, values_of("sampling", 3))
    given = look(forced="Once upon a time there was").ids
    before = look(given)
    with Passes(model.loaded.model) as passes:
        few = look(given, top_k=3, top_p=1.0, min_p=0.0)
        assert few.kept == 3 and {each.removed_by for each in few.score.candidates} == {"", "top_k"}
        certain = look(given, temperature=0.05)
        assert certain.score.after > before.score.after or certain.score.id != before.score.id
        assert look(given, strategy="greedy").score.rank == 1
    assert passes.count == 0
    assert before.score.candidates[0].logprob == certain.score.candidates[0].logprob  # by the model alone
    assert len(before.score.candidates) >= 20 and before.vocabulary == len(model.loaded.tokenizer)


def test_a_guess_has_a_probability_and_a_rank_and_a_typed_text_is_text():
    model = loaded("floats")
    look = looker(model, values_of("greedy", 0))
    found = look(forced="Once upon a time<|im_end|>", guess=" there")
    assert "".join(found.pieces) == "Once upon a time<|im_end|>" and not found.ended
    assert found.guess.rank >= 1 and found.guess.text == " there"[: len(found.guess.text)]
    best = found.score.candidates[0]
    assert look(found.ids, guess=best.text).guess.rank == 1 or best.text == ""
    assert math.exp(found.guess.logprob) <= math.exp(best.logprob)
    end = model.loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert look([end]).ended
    assert look(found.ids[:-1]).pieces == found.pieces[:-1]  # the last one is taken back


def test_what_has_no_next_token_says_so():
    model = loaded("floats")
    with pytest.raises(BadSetting, match="weighs whole answers"):
        looker(model, values_of("beams", 0))()
    with pytest.raises(BadConversation, match="context window is full"):
        looker(model, values_of("greedy", 0))([5] * model.loaded.context)
    with pytest.raises(BadConversation, match="tokens that Budgie"):
        looker(model, values_of("greedy", 0))([10**9])


def test_only_the_last_texts_are_kept():
    model = loaded("floats")
    look = looker(model, values_of("sampling", 3))
    first = look().ids
    for length in range(1, 12):
        look([5] * length)
    with Passes(model.loaded.model) as passes:
        look(first)
    assert passes.count > 0
    assert len(model._next._logits) <= 8 and len(model._next._states) <= 8
