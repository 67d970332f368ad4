"""A connection that breaks, as a laptop's does that sleeps or changes its network: the talk stays, and goes on."""

import re

import pytest
from playwright.sync_api import expect

from parley.serving import turn
from tests.browser import Visitor
from tests.conftest import until
from tests.line import Line

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

STORY = "Once upon a time there was a bird that could count. " * 6


@pytest.fixture
def far(chromium, inside):
    """A visitor at the other end of a line, and the line."""
    line = Line(inside.url)
    visitor = Visitor(chromium, line.url)
    visitor.choose("model", "Parrot")
    yield visitor, line
    visitor.close()
    line.close()
    until(lambda: not turn.running())


def test_a_connection_that_has_not_broken_is_not_asked_after(far):
    visitor, _ = far
    asked = []
    visitor.tab.on("request", lambda request: asked.append(request.url))
    visitor.ask("one")
    visitor.ask("two")
    assert not [url for url in asked if url.endswith("/app_id")]


@pytest.mark.parametrize(
    ("path", "answer"), [("data", {"status": 502}), ("data", {"body": "data: \n\n"}), ("join", {"status": 503})]
)
def test_a_proxy_that_answers_for_a_server_which_is_away_does_not_end_the_talk(far, path, answer):
    """It says so, or ends the stream as if all had been said. The answer is made again without a click."""
    visitor, _ = far
    visitor.ask("one")
    visitor.tab.route(f"**/queue/{path}*", lambda route: route.fulfill(**answer), times=1)
    visitor.send("two")
    expect(visitor.answer).to_have_text("two")
    visitor.until_free()
    expect(visitor.error).to_have_count(0)
    expect(visitor.questions).to_have_text(["one", "two"])


def test_an_answer_whose_connection_breaks_stays_and_goes_on(far, inside):
    visitor, line = far
    visitor.ask("one")
    visitor.limit(4096)
    said = STORY * 5  # which takes ten seconds
    visitor.send(said)
    expect(visitor.answer).to_have_text(re.compile("Once"))
    line.cut()
    until(lambda: not turn.running())
    shown = visitor.answer.inner_text()
    line.mend()
    expect(visitor.answer).to_have_text(said.strip())
    assert said.startswith(shown.strip())
    visitor.until_free()
    expect(visitor.questions).to_have_text(["one", said.strip()])
    expect(visitor.error).to_have_count(0)
    visitor.ask("two")
    expect(visitor.answer).to_have_text("two")


IMPATIENT = """const later = window.setTimeout;
window.setTimeout = (work, ms, ...rest) => later(work, ms === 60000 ? 5000 : ms, ...rest);"""


def test_a_connection_that_dies_without_a_sign_is_noticed(far):
    visitor, line = far
    visitor.tab.add_init_script(IMPATIENT)
    visitor.tab.reload()
    visitor.choose("model", "Parrot")
    visitor.limit(4096)
    visitor.send(STORY * 5)
    expect(visitor.answer).to_have_text(re.compile("Once"))
    line.lose()
    expect(visitor.answer).to_have_text((STORY * 5).strip())
    visitor.until_free()
    expect(visitor.error).to_have_count(0)


def test_a_talk_goes_on_where_the_server_has_not_noticed_the_break(far):
    visitor, line = far
    visitor.limit(4096)
    visitor.send(STORY * 60)  # which takes more than a minute
    expect(visitor.answer).to_have_text(re.compile("Once"))
    (before,) = turn.running()
    line.cut(secretly=True)
    line.mend()
    until(lambda: turn.running() and before not in turn.running())
    visitor.stop_button.click()
    visitor.until_free()
    visitor.ask(STORY)
    expect(visitor.answer).to_have_text(STORY.strip())
    line.cut()  # what the server still holds open


def test_a_message_that_is_sent_without_a_connection_is_answered_when_there_is_one(far):
    visitor, line = far
    visitor.ask("one")
    line.cut()
    with visitor.tab.expect_event("requestfailed", lambda request: "/queue/join" in request.url):
        visitor.send("two")
    expect(visitor.questions).to_have_text(["one", "two"])
    visitor.box.fill("three")
    with visitor.tab.expect_response(lambda answer: "/app_id" in answer.url):
        line.mend()
    expect(visitor.answer).to_have_text("two")
    visitor.until_free()
    expect(visitor.page.locator("#chat > .wrap")).to_be_hidden()  # "Error", over the whole talk
    expect(visitor.error).to_have_count(0)
    expect(visitor.box).to_have_value("three")
    visitor.box.press("Enter")
    expect(visitor.answer).to_have_text("three")
    expect(visitor.questions).to_have_text(["one", "two", "three"])
    expect(visitor.page.get_by_role("group", name="Versions")).to_have_count(0)
