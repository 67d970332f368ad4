"""A page that is left, crashes or sleeps in the middle of an answer: when it comes back, the answer goes on."""

import contextlib
import re

import pytest
from playwright.sync_api import Error, expect

from parley.serving import turn
from tests.browser import Visitor, launched
from tests.conftest import until
from tests.ui.test_conversations import Kept, wait_until_stored

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

LENGTH = 500  # tokens, which take some seconds
BEGUN = "(kept) => Object.values(kept.nodes).at(-1)?.stored?.finish === null"
WORDS = re.compile(r"\w+ \w+ \w+ \w+")
HIDDEN = """(hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""  # a browser without a screen shows every page


@pytest.fixture(scope="module")
def address(inside):
    return f"{inside.url}/?model=endless&seed=7&max_new_tokens={LENGTH}&prompt=Hello&run=1"


def finished(visitor):
    """The text of the whole answer."""
    expect(visitor.quiet).to_have_text(re.compile(rf"{LENGTH} tokens"))
    visitor.until_free()
    expect(visitor.questions).to_have_text(["Hello"])
    expect(visitor.error).to_have_count(0)
    return visitor.answer.inner_text()


@pytest.fixture(scope="module")
def whole(chromium, address):
    """That which comes without a break."""
    visitor = Visitor(chromium, address)
    text = finished(visitor)
    visitor.close()
    return text


@contextlib.contextmanager
def answering(context, address):
    """A visitor in the middle of the answer."""
    visitor = Visitor(context, address)
    expect(visitor.answer).to_have_text(WORDS)
    wait_until_stored(visitor, BEGUN)
    yield visitor
    visitor.tab.evaluate("localStorage.clear()")
    visitor.close()


@pytest.fixture(autouse=True)
def empty_storage(whole, chromium, inside):
    with chromium.new_page() as tab:
        tab.goto(f"{inside.url}/robots.txt")
        tab.evaluate("localStorage.clear()")


@pytest.mark.parametrize("cached", [False, True], ids=["loaded again", "from the page cache"])
def test_back_in_the_middle_of_an_answer(chromium, address, inside, whole, cached):
    how = {"ignore_default_args": ["--disable-back-forward-cache"]} if cached else {}
    with launched(chromium.browser.browser_type, **how) as context, answering(context, address) as visitor:
        visitor.tab.evaluate("addEventListener('pageshow', (event) => { sessionStorage.back = event.persisted })")
        visitor.tab.goto(f"{inside.url}/robots.txt")
        until(lambda: not turn.running())
        # The page may be gone before a call that leaves it has returned.
        visitor.tab.evaluate("() => { setTimeout(() => history.back()) }")
        visitor.tab.wait_for_url(address, wait_until="commit")
        assert finished(visitor) == whole
        assert visitor.tab.evaluate("sessionStorage.back") == ("true" if cached else None)


def test_a_tab_that_crashes_in_the_middle_of_an_answer(chromium, address, inside, whole):
    with answering(chromium, address) as visitor:
        with visitor.tab.expect_event("crash"), contextlib.suppress(Error):
            visitor.tab.goto("chrome://crash")
        until(lambda: not turn.running())
        visitor.close()
        again = Visitor(chromium, inside.url)
        Kept(again).show().entries.first.click()
        assert finished(again) == whole
        visitor.tab = again.tab


def test_a_phone_that_was_locked_in_the_middle_of_an_answer(chromium, address, whole):
    with answering(chromium, address) as visitor:
        visitor.tab.evaluate(HIDDEN, True)
        chromium.set_offline(True)
        until(lambda: not turn.running())
        chromium.set_offline(False)
        visitor.tab.evaluate(HIDDEN, False)
        assert finished(visitor) == whole


LEFT_LONG_AGO = """() => {
    const part = (role, text) => ({ role, content: [{ type: "text", text }], metadata: {} });
    const node = (id, parent, role, text) => ({ id, parent, role, made: 0, messages: [part(role, text)] });
    const nodes = { a: node("a", null, "user", "Hello"), b: node("b", "a", "assistant", "I am an owl, and") };
    const updated = Date.now() - 11 * 60 * 1000;
    const kept = { saved: 1, id: "x", title: "", created: updated, updated, draft: "", settings: null, nodes };
    localStorage.setItem("parley.conversation.x", JSON.stringify({ ...kept, path: ["a", "b"] }));
}"""


def test_after_ten_minutes_an_answer_goes_on_with_one_click(visitor):
    visitor.tab.evaluate(LEFT_LONG_AGO)
    Kept(visitor).show().entries.first.click()
    expect(visitor.answer).to_have_text("I am an owl, and")
    visitor.limit(8)
    visitor.press("Continue")
    expect(visitor.quiet).to_have_text(re.compile("8 tokens|[1-7] tokens? "))
    expect(visitor.answer).to_contain_text("I am an owl, and")
