"""A watermarked answer is detected among others, by programs and on the page."""

import re

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from parley.strategies import STRATEGIES
from tests.strategies.test_registry import answer, settings

pytest_plugins = ["tests.browser"]

LOUD = {"temperature": 1.5, "top_p": 1.0, "top_k": 0, "watermark_bias": 6.0, "max_new_tokens": 200}


@pytest.fixture(scope="module")
def marked(endless):
    """Text of a model that bears each mark, by the name of its strategy."""
    return {name: answer(endless, settings(name, **LOUD)).text for name in ("green_list", "synthid", "sampling")}


@pytest.fixture(scope="module")
def client(inside):
    return Client(inside.url, verbose=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["green_list", "synthid"])
def test_a_program_learns_whether_a_text_bears_the_mark_of_a_key(client, marked, name):
    def detect(text, **asked):
        return client.predict(text, strategy=name, **asked, api_name="/detect")

    found = detect(marked[name])
    assert found["verdict"] == "found"
    assert found["marked"] and found["z"] > 3 and found["p"] < 0.001 and found["scored"] > 60
    assert not detect(marked[name], watermark_key=7)["marked"]
    assert detect(marked["sampling"])["verdict"] == "no sign"
    short = detect("Hi")
    assert short["scored"] <= 1 < short["needed"]
    assert short["verdict"] == "too short or too predictable to say"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"strategy": "greedy"}, "Greedy leaves no mark. Choose a strategy with a watermark."),
        ({"strategy": "magic"}, "no strategy called 'magic'"),
        ({"model": "parrot"}, "Parrot .* has no tokens to look at"),
        ({"model": "gpt-9"}, "no model called 'gpt-9'"),
        ({"text": ""}, "Give a text of at most 10,000 characters"),
        ({"text": "x" * 10_001}, "Give a text of at most 10,000 characters"),
        ({"watermark_key": 0}, "Watermark key must be a whole number from 1"),
    ],
    ids=str,
)
def test_what_cannot_be_looked_for_is_refused_with_one_sentence(client, asked, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(**{"text": "hello", "api_name": "/detect"} | asked)


def test_the_page_gives_three_verdicts_and_takes_the_last_answer_without_copying(visitor, marked):
    box, found = visitor.page.locator("#detector"), visitor.page.locator("#detected")
    expect(box).to_be_hidden()
    visitor.choose("strategy", "Watermark: green list")
    expect(box).to_contain_text(f"{STRATEGIES['green_list'].mark_tokens} tokens")
    visitor.press("Check the last answer")
    expect(found).to_have_text("There is no answer yet. Ask something first.")
    visitor.choose("model", "Parrot")
    expect(box).to_be_hidden()
    visitor.ask(marked["green_list"])  # the parrot's answer is this text
    visitor.choose("model", "Budgie")
    visitor.choose("strategy", "Watermark: green list")
    visitor.press("Check the last answer")
    expect(found).to_contain_text("Found: the text has this mark. ")
    expect(found).to_have_class(re.compile(r"\bevidence-10\b"))
    for text, sentence in (
        (marked["sampling"], "No sign of this mark."),
        ("Hello, who are you?", "The text is too short or too predictable to say."),
    ):
        box.locator("textarea").fill(text)
        visitor.press("Check this text")
        expect(found).to_contain_text(sentence)
        expect(found).to_have_class(re.compile(r"\bevidence-[0-4]\b"))
