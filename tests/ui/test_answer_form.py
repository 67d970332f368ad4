"""A form of the answer on the page: an example fills the box, and the answer keeps the form."""

import re

import pytest
from playwright.sync_api import expect

from parley.answer_forms import grammar_of
from parley.errors import BadSetting
from parley.ui import controls

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

QUESTION = "Hello, who are you?"


@pytest.fixture
def forms(visitor):
    """The buttons of the examples, below the settings that are folded away."""
    visitor.page.locator("#more > button").click()
    return visitor.page.locator("#forms")


def pattern(visitor):
    return visitor.setting("answer_pattern").locator("textarea")


def test_the_examples_stand_right_below_the_box_that_they_fill(visitor, forms):
    above, below = (visitor.setting(name).bounding_box() for name in ("answer_pattern", "min_new_tokens"))
    box = forms.bounding_box()
    assert 0 <= box["y"] - (above["y"] + above["height"]) < 10 and box["y"] + box["height"] <= below["y"]
    for label, (form, text) in controls.FORMS.items():
        forms.get_by_role("button", name=label).click()
        expect(pattern(visitor)).to_have_value(text)
        expect(visitor.setting("answer_form").locator("input")).to_have_value(form)


@pytest.mark.parametrize(("example", "form"), [("Date", r"\d{4}-\d\d-\d\d"), ("Yes or no", "yes|no")])
def test_the_answer_has_the_form_of_an_example(visitor, forms, example, form):
    forms.get_by_role("button", name=example).click()
    expect(pattern(visitor)).to_have_value(controls.FORMS[example][1])
    visitor.ask(QUESTION)
    expect(visitor.answer).to_have_text(re.compile(rf"^\s*(?:{form})\s*$"))


def test_a_bad_schema_gets_one_sentence_and_nothing_typed_is_lost(visitor, forms):
    bad = '{"type": "objekt"}'
    forms.get_by_role("button", name="Person").click()
    expect(pattern(visitor)).to_have_value(controls.FORMS["Person"][1])
    pattern(visitor).fill(bad)
    with pytest.raises(BadSetting) as refusal:
        grammar_of("json_schema", bad)
    visitor.ask(QUESTION)
    expect(visitor.error).to_contain_text(str(refusal.value))
    expect(pattern(visitor)).to_have_value(bad)
    expect(visitor.questions).to_have_text([QUESTION])
    forms.get_by_role("button", name="Yes or no").click()
    expect(pattern(visitor)).to_have_value("yes\nno")
    visitor.press("Retry")
    expect(visitor.answer).to_have_text(re.compile(r"^\s*(?:yes|no)\s*$"))
