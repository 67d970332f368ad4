"""Continue, as a visitor and as a program see it: the same bubble grows, and nothing is said twice."""

import re

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from tests.browser import QUIET

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow  # test_page.py holds the way of a message in the fast run

STORY = "Tell me a story about an owl."


def button(visitor):
    return visitor.page.get_by_role("button", name="Continue")


def test_an_answer_that_reached_its_limit_goes_on_in_its_bubble_until_it_has_ended(parrot):
    parrot.limit(4)
    parrot.ask("Polly wants a fine cracker")
    expect(parrot.answer).to_have_text("Polly wants")
    for said in ("Polly wants a fine crack", "Polly wants a fine cracker"):
        button(parrot).click()
        expect(parrot.answer).to_have_text(said)
        parrot.until_free()
    expect(parrot.quiet).to_have_text(QUIET)
    expect(parrot.quiet).to_contain_text("· 9 tokens ·")  # of the whole answer
    expect(button(parrot)).to_have_count(0)
    expect(parrot.questions).to_have_count(1)
    expect(parrot.folded).to_have_count(1)
    parrot.press("Retry")
    expect(parrot.answer).to_have_text("Polly wants")


def test_a_thought_that_was_cut_short_goes_on_and_the_answer_follows(visitor):
    visitor.choose("strategy", "Greedy")
    visitor.setting("thinking").locator("input").check()
    visitor.limit(6)
    visitor.ask("What is 3 plus 4?")
    expect(visitor.folded.first.locator(".title")).to_have_text("Thought")
    expect(visitor.answer).to_have_count(0)
    visitor.limit(100)
    button(visitor).click()
    expect(visitor.quiet).to_have_text(QUIET)
    expect(visitor.answer).to_have_text("3 + 4 = 7.")
    visitor.folded.first.locator(".title").click()
    expect(visitor.folded.first).to_contain_text("3 plus 4 is 7.")
    expect(visitor.folded).to_have_count(2)


def test_a_stopped_answer_goes_on_with_another_model(chatterbox):
    visitor, _ = chatterbox
    visitor.send("hello")
    expect(visitor.answer).to_have_text(re.compile(r"\w{2,}"))
    visitor.stop_button.click()
    visitor.until_free()
    said = visitor.answer.inner_text()
    visitor.choose("model", "Budgie")
    button(visitor).click()
    visitor.until_free()
    assert visitor.answer.inner_text().startswith(said)


def test_a_continuation_that_the_server_cannot_take_leaves_all_as_it_was(parrot):
    parrot.limit(4)
    parrot.ask("Polly wants a cracker")
    with parrot.refused():
        button(parrot).click()
    expect(parrot.error).to_have_text(re.compile("could not take this turn"))
    parrot.until_free()
    expect(parrot.answer).to_have_text("Polly wants")
    parrot.limit(40)
    button(parrot).click()
    expect(parrot.answer).to_have_text("Polly wants a cracker")
    expect(parrot.error).to_have_count(0)


@pytest.mark.parametrize("kept", [True, False], ids=["conversation kept", "conversation passed"])
def test_a_program_goes_on_with_an_answer_by_an_empty_message(inside, kept):
    client = Client(inside.url, verbose=False)
    asked = {"strategy": "greedy", "api_name": "/chat"}
    whole = client.predict(STORY, messages=[], **asked)
    client.reset_session()
    said = client.predict(STORY, max_new_tokens=9, **asked)
    begun = [{"role": "user", "content": STORY}, {"role": "assistant", "content": said}]
    more = client.predict("", max_new_tokens=9, **asked if kept else asked | {"messages": begun})
    begun[-1] = {"role": "assistant", "content": said + more}
    rest = client.predict("", **asked if kept else asked | {"messages": begun})
    assert said + more + rest == whole
