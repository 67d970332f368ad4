"""The next token on the page: bars that follow the sliders, steps, a covered guess, a forced text."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.ui.test_accessibility import AXE, BOXES, CUT_RINGS, violations
from tests.ui.test_links import HELD, held_settings

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow
QUESTION = "Tell me a story about an owl."


@pytest.fixture(autouse=True)
def empty_storage(visitor):
    visitor.tab.evaluate("localStorage.clear()")


class Next:
    """The view as a visitor uses it."""

    def __init__(self, visitor):
        self.visitor, self.page = visitor, visitor.page
        self.view = self.page.locator(".view")
        self.tokens = self.view.locator(".so-far .token")
        self.rows = self.view.locator(".bars li:not(.others)")
        self.facts = self.view.locator(".facts")

    def open(self, draft=QUESTION):
        self.visitor.box.fill(draft)
        self.visitor.press("Next token")
        expect(self.rows.first).to_be_visible()
        return self

    def press(self, label):
        """Presses a button that changes the text, and waits for what follows it."""
        count = self.tokens.count()
        self.view.get_by_role("button", name=label, exact=True).click()
        expect(self.tokens).not_to_have_count(count)

    def text(self):
        return "".join(self.tokens.all_text_contents())


def slide(visitor, name, value):
    visitor.setting(name).locator("input[type=range]").fill(str(value))


def test_bars_follow_the_sliders_and_steps_are_one_run(visitor):
    with visitor.settings():
        visitor.setting("seed").locator("input").fill("5")
    view = Next(visitor).open()
    slide(visitor, "top_k", 3)
    expect(view.facts).to_contain_text("3 of 2,048 tokens are left by the settings")
    expect(view.facts).to_contain_text("Temperature, Top-k")
    assert view.rows.count() >= 20
    expect(view.rows.nth(3)).to_contain_text(re.compile("Top-"))
    slide(visitor, "top_k", 50)
    expect(view.facts).not_to_contain_text("3 of 2,048")
    for _ in range(8):
        view.press("Step")
    said = view.text()
    view.press("Take back")
    view.press("Step")  # the same draw again
    assert view.text() == said
    visitor.press("Back to the conversation")
    expect(visitor.box).to_have_value(QUESTION)
    visitor.limit(8)
    visitor.ask(QUESTION)
    expect(visitor.answer).to_have_text(said.strip())


def test_a_covered_guess_a_forced_text_and_an_answer_that_goes_on(visitor):
    visitor.choose("strategy", "Greedy")
    visitor.limit(12)
    view = Next(visitor).open()
    view.view.get_by_label("Hide").check()
    expect(view.rows).to_have_count(0)
    guess = view.view.get_by_role("textbox", name="Your guess of the next word")
    guess.fill("Once")
    guess.press("Enter")
    expect(view.view.locator(".said")).to_have_text(re.compile(r"“.*” has [\d.<]+%, rank \d+\."))
    expect(view.rows.first).to_be_visible()
    view.press("Step")
    expect(view.rows).to_have_count(0)  # covered again
    view.view.get_by_label("Hide").uncheck()
    typed = view.view.get_by_role("textbox", name="A text to put in")
    typed.fill(" upon <b>a</b> time")
    view.press("Put in")
    assert view.text().endswith(" upon <b>a</b> time") and view.view.locator("b").count() == 0
    count = view.tokens.count()
    view.rows.nth(2).get_by_role("button").click()  # any token can be taken
    expect(view.tokens).to_have_count(count + 1)
    begun = view.text().strip()
    visitor.press("Let it write on")
    expect(view.view).to_have_count(0)
    visitor.until_free()
    expect(visitor.questions).to_have_text([QUESTION])
    expect(visitor.box).to_have_value("")
    expect(visitor.page.locator("#chat .bot-row:not(:has(.thought-group))")).to_contain_text(
        re.sub("</?b>", "", begun)
    )  # as Markdown


def test_an_answer_is_stepped_on_from_one_of_its_tokens(visitor):
    visitor.limit(12)
    visitor.ask(QUESTION)
    visitor.press("Show choices")
    tokens = visitor.page.get_by_role("listbox", name="The answer").get_by_role("option")
    expect(tokens.first).to_be_focused()
    before = tokens.all_text_contents()
    tokens.nth(5).click()
    visitor.press("Step on from here")
    view = Next(visitor)
    expect(view.tokens).to_have_count(5)
    view.press("Step")  # with the seed of the answer
    assert view.tokens.all_text_contents() == before[:6]
    visitor.press("Let it write on")
    visitor.until_free()
    expect(visitor.page.get_by_role("group", name="Versions")).to_contain_text("2/2")


def knob(view, label):
    return view.view.get_by_role("slider", name=label)


def test_a_narrow_page_has_the_sliders_in_the_view_and_they_follow_the_panel(visit, inside, chromium):
    narrow = Visitor(chromium, f"{inside.url}/?view=next&model=budgie&top_k=7&prompt=Hello", width=390)
    view = Next(narrow)
    expect(view.rows.first).to_be_visible()
    expect(knob(view, "Top-k")).to_have_value("7")
    knob(view, "Top-k").fill("3")
    expect(view.facts).to_contain_text("3 of 2,048 tokens are left by the settings")
    expect(narrow.setting("top_k").locator("input[type=number]")).to_have_value("3")
    knob(view, "Top-p").focus()
    with narrow.settings():
        narrow.setting("top_k").locator("input[type=number]").fill("2")
    expect(knob(view, "Top-k")).to_have_value("2")
    narrow.choose("strategy", "Greedy")
    expect(knob(view, "Top-k")).to_have_count(0)
    narrow.choose("strategy", "Sampling")
    expect(knob(view, "Top-k")).to_have_value("2")
    narrow.tab.evaluate(f"{AXE}; 0")
    assert violations(narrow) == []
    assert narrow.tab.evaluate(CUT_RINGS, ".view") == []
    narrow.close()
    assert narrow.faults == []


def test_a_slider_moved_before_the_settings_of_a_link_are_there_wins(chromium, inside):
    with held_settings(chromium) as release:
        narrow = Visitor(chromium, f"{inside.url}/?view=next&stop={HELD}&top_k=3&prompt=Hello", width=390)
        view = Next(narrow)
        expect(view.facts).to_contain_text("3 of 2,048 tokens are left by the settings")
        knob(view, "Top-k").fill("2")
        release()
    expect(narrow.setting("top_k").locator("input[type=number]")).to_have_value("2")
    expect(narrow.setting("stop").locator("textarea, input")).to_have_value(HELD)
    expect(view.facts).to_contain_text("2 of 2,048 tokens are left by the settings")
    narrow.close()
    assert narrow.faults == []


def test_beams_have_no_next_token_and_fingers_press_what_they_mean(chromium, inside):
    context = chromium.browser.new_context(has_touch=True, is_mobile=True)
    visitor = Visitor(context, f"{inside.url}/?view=next&model=budgie&strategy=beams&prompt=Hello", width=390)
    expect(visitor.page.locator(".said")).to_contain_text("weighs whole answers, so it has no next token of its own.")
    visitor.choose("strategy", "Sampling")
    view = Next(visitor)
    expect(view.rows.first).to_be_visible()
    assert [box for box in visitor.tab.evaluate(BOXES) if min(box[1:]) < 32] == []
    visitor.close()
    context.close()
    assert visitor.faults == []
