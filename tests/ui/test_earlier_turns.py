"""A long conversation shows its last turns, and the ones before as soon as somebody scrolls up to them."""

import pytest
from playwright.sync_api import expect

from tests.browser import Visitor

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

TURNS = 60
MORE_THAN = """(count) =>
  [...document.querySelectorAll("#chat .user-row")].filter((row) => row.checkVisibility()).length > count"""
# How far below the top of the conversation a message begins, in pixels.
PLACE = "(row) => row.getBoundingClientRect().top - row.closest('.bubble-wrap').getBoundingClientRect().top"


@pytest.fixture
def shown(chromium, space):
    """The page with a long conversation: how many of its questions are displayed."""
    visitor = Visitor(chromium, space.url)
    visitor.choose("model", "Parrot")
    visitor.open_long_conversation(TURNS)
    displayed = visitor.page.locator("#chat .user-row:visible")
    expect(displayed.last).to_be_in_viewport()
    yield visitor, displayed
    visitor.tab.evaluate("localStorage.clear()")
    visitor.close()


# Scrolls up until it stays so: Gradio scrolls down once more after what came just before.
SCROLL_UP = """() => {
  const box = document.querySelector("#chat .bubble-wrap");
  const isUp = box.scrollHeight - box.scrollTop - box.clientHeight > 300;
  if (!isUp) [box.scrollTop, window.upSince] = [0, performance.now()];
  return isUp && performance.now() - window.upSince > 1500;
}"""


def test_scrolling_up_shows_all_turns_and_moves_nothing(shown):
    visitor, displayed = shown
    assert displayed.count() < TURNS / 2
    while (count := displayed.count()) < TURNS:
        first = displayed.first.element_handle()
        visitor.page.locator("#chat .bubble-wrap").evaluate("(box) => { box.scrollTop = 0 }")
        visitor.tab.wait_for_function(MORE_THAN, arg=count)
        assert 0 <= first.evaluate(PLACE) < 40


def test_who_reads_further_up_while_an_answer_comes_keeps_what_they_see(shown):
    visitor, displayed = shown
    visitor.limit(4096)
    visitor.send("owl " * 600)
    expect(visitor.stop_button).to_be_visible()
    visitor.tab.wait_for_function(SCROLL_UP)
    first = displayed.first.element_handle()
    visitor.until_free()
    assert first.is_visible()


def test_all_turns_are_printed(shown):
    visitor, displayed = shown
    visitor.tab.emulate_media(media="print")
    expect(displayed).to_have_count(TURNS)
