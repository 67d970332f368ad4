"""Answers keep the form that they are forced into, with every strategy, and forcing tokens changes no text."""

import json
import re
import threading

import pytest

from parley.engines.base import TurnRequest
from parley.errors import BadSetting
from parley.messages import Message
from parley.settings import Settings
from parley.strategies import STRATEGIES
from parley.strategies.processors.answer_form import AnswerForm
from tests.conftest import Passes
from tests.engines.openvino.asking import SHORT, answer
from tests.schemas import check_object, generate

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "lamps": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["owl", "tea"]},
    },
    "required": ["name", "lamps", "kind"],
    "additionalProperties": False,
}
LARK = 'start: "the " word " sees " word\nword: "owl" | "lamp" | "sea"'
FORMS = {
    "json_schema": (SCHEMA, lambda text: check_object(SCHEMA, json.loads(text))),
    "choices": (["red tea", "green tea"], lambda text: text in ("red tea", "green tea")),
    "regex": ("[a-z]{3}-[0-9]{2}", lambda text: re.fullmatch("[a-z]{3}-[0-9]{2}", text)),
    "grammar": (LARK, lambda text: re.fullmatch("the (owl|lamp|sea) sees (owl|lamp|sea)", text)),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", FORMS)
def test_each_strategy_keeps_each_form(budgie, strategy, form):
    pattern, fits = FORMS[form]
    made = answer(budgie, SHORT, strategy=strategy, answer_form=form, answer_pattern=pattern, max_new_tokens=90)
    assert made.finish == "end" and fits(made.text), made.text
    assert made.run_record.config["answer_form_removed"].endswith("% of the probability at a token")


@pytest.mark.parametrize("strategy", ["greedy", "sampling", "prompt_lookup"])
def test_forced_tokens_go_through_in_one_pass_and_change_no_text(budgie, monkeypatch, strategy):
    told = []
    for forces in (True, False):
        if not forces:
            monkeypatch.setattr(AnswerForm, "after", lambda self, ids: [])
        with Passes(budgie.loaded.model) as passes:
            made = answer(
                budgie, SHORT, strategy=strategy, answer_form="json_schema", answer_pattern=SCHEMA, max_new_tokens=90
            )
        told.append((made.text, list(made.ids), passes.count))
    (text, ids, few), (plain, plain_ids, many) = told
    assert text == plain and ids == plain_ids
    assert few < many - 5


def test_of_each_token_it_is_told_how_much_the_form_removed(budgie):
    values = {"strategy": "sampling", "seed": 2, "answer_form": "choices", "answer_pattern": "red tea\ngreen tea"}
    made = answer(budgie, SHORT, **values)
    request = TurnRequest.of(SHORT, Settings.check(values), threading.Event(), generated=made.origin.prompt_ids)
    scores = budgie.scores(request, made.ids)
    assert all(0 <= each.form_removed <= 1 for each in scores) and scores[0].form_removed > 0.5
    gone = {candidate.removed_by for candidate in scores[0].candidates}
    assert "answer_form" in gone and [each.id for each in scores] == list(made.ids)


def test_a_thought_stays_free_and_the_answer_after_it_has_the_form(budgie):
    question = [Message("user", "Which is larger, 12 or 31?")]
    values = {
        "thinking": True,
        "answer_form": "choices",
        "answer_pattern": "twelve\nthirty-one",
        "max_new_tokens": 200,
    }
    made = answer(budgie, question, **values)
    assert made.text in ("twelve", "thirty-one") and len(made.thought) > 10
    free = answer(budgie, question, thinking=True, max_new_tokens=200)
    assert made.thought == free.thought


def test_an_answer_that_was_begun_goes_on_in_its_form(budgie):
    begun = [*SHORT, Message("assistant", '{"name": "ow')]
    made = answer(budgie, begun, answer_form="json_schema", answer_pattern=SCHEMA, max_new_tokens=90)
    assert check_object(SCHEMA, json.loads('{"name": "ow' + made.text))
    with pytest.raises(BadSetting, match="do not fit its form"):
        answer(budgie, [*SHORT, Message("assistant", "Once")], answer_form="json_schema", answer_pattern=SCHEMA)


@pytest.mark.parametrize(
    ("form", "pattern", "says"),
    [
        ("json_schema", '{"type": "objct"}', "JSON schema cannot be used: Invalid type: objct"),
        ("json_schema", "{", "JSON schema cannot be used"),
        ("json_schema", "[1]", "a schema is an object"),
        ("regex", "a(b", "regular expression cannot be used"),
        ("grammar", "start: foo", "grammar cannot be used"),
        ("choices", " \n", "needs a list of choices"),
        ("regex", "", "needs a regular expression"),
    ],
)
def test_a_form_that_cannot_be_used_is_refused_with_one_sentence_before_anything_else(form, pattern, says):
    with pytest.raises(BadSetting, match=says) as refusal:
        Settings.check({"answer_form": form, "answer_pattern": pattern})
    assert refusal.value.name == "answer_pattern" and "\n" not in str(refusal.value)


@pytest.mark.slow
def test_twenty_generated_schemas_parse(budgie):
    made = generate(budgie, count=20, seed=1)
    assert made.wrong == [] and made.fitting.total() == 20
