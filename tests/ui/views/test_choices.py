"""The choices of an answer on the page: shown, walked through, and gone on from another token."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.ui.test_accessibility import AXE, BOXES, CUT_RINGS, violations

pytest_plugins = ["tests.browser"]
TEXT = "An owl <b>sat</b> & 3 €.\nÄh, yes."


@pytest.fixture(name="visitor")
def forgetful(visitor):
    visitor.tab.evaluate("localStorage.clear()")
    return visitor


class Choices:
    """The view as a visitor uses it."""

    def __init__(self, visitor):
        self.visitor, self.page = visitor, visitor.page
        self.view = self.page.locator(".view")
        self.tokens = self.view.get_by_role("listbox", name="The answer").get_by_role("option")
        self.choice = self.view.locator(".choice")
        self.rows = self.choice.locator("tbody tr")

    def show(self):
        self.page.get_by_role("button", name="Show choices").last.click()
        expect(self.tokens.first).to_be_focused()
        return self


def sampled(visitor, seed=7, tokens=24):
    with visitor.settings():
        visitor.setting("seed").locator("input").fill(str(seed))
    visitor.limit(tokens)
    visitor.ask("Tell me a story about an owl.")
    return Choices(visitor)


def test_each_token_shows_its_candidates_what_removed_them_and_the_draw(visitor):
    view = sampled(visitor)
    said = visitor.answer.inner_text()
    view.show()
    assert "".join(view.tokens.all_text_contents()).strip() == said
    expect(view.choice).to_contain_text("Token 1 of 24")
    visitor.tab.keyboard.press("ArrowRight")
    expect(view.tokens.nth(1)).to_be_focused()
    expect(view.choice).to_contain_text("Token 2 of 24")
    expect(view.choice).to_contain_text(re.compile(r"By the model: [\d.]+%, rank \d+After the settings: [\d.]+%"))
    expect(view.choice).to_contain_text(re.compile(r"Entropy: \d+\.\d\d bits"))
    assert view.rows.count() >= 10
    chosen = view.choice.locator("tr.chosen")
    expect(chosen).to_have_count(1)
    expect(chosen.locator("td b")).to_have_text(re.compile(r"^[\d.]+$"))  # it has the largest quotient
    expect(view.choice.locator("tr.removed").first).to_contain_text("Top-p")
    view.tokens.nth(5).click()
    view.tokens.nth(8).hover()
    expect(view.choice).to_contain_text("Token 9 of 24")
    view.view.get_by_role("heading").hover()
    expect(view.choice).to_contain_text("Token 6 of 24")  # the one that was clicked stays
    expect(view.view).to_contain_text("The settings work in this order: Temperature, Top-p")
    view.view.locator(".prompt summary").click()
    prompt = view.view.get_by_role("listbox", name=re.compile("The prompt: "))
    expect(prompt.locator("[data-control]").first).to_have_text("<|im_start|>")
    expect(prompt).to_contain_text("Tell me a story about an owl.")
    expect(visitor.box).not_to_be_visible()
    visitor.tab.keyboard.press("Escape")
    expect(view.view).to_have_count(0)
    expect(visitor.page.get_by_role("button", name="Show choices")).to_be_focused()


def test_an_answer_goes_on_from_another_token_as_another_version(visitor):
    view = sampled(visitor).show()
    before = view.tokens.all_text_contents()
    view.tokens.nth(4).click()
    other = view.rows.get_by_role("button").first
    token = other.inner_text().replace("␣", " ")
    other.click()
    expect(view.view).to_have_count(0)
    visitor.until_free()
    expect(visitor.page.get_by_role("group", name="Versions")).to_contain_text("2/2")
    visitor.tab.reload()  # the branch is kept
    expect(visitor.page.get_by_role("group", name="Versions")).to_contain_text("2/2")
    view.show()
    assert view.tokens.all_text_contents()[:5] == [*before[:4], token]
    visitor.press("Back to the conversation")
    visitor.page.get_by_role("button", name="Earlier version").click()
    expect(visitor.answer).to_have_text("".join(before).strip())


def test_a_text_from_a_link_is_scored_and_is_no_html(visitor, inside, chromium):
    other = Visitor(chromium, f"{inside.url}/?view=tokens&model=budgie&text={quote(TEXT)}")
    tokens = other.page.get_by_role("listbox").get_by_role("option")
    expect(tokens.nth(1)).to_be_visible()
    shown = "".join(each for each in tokens.all_text_contents() if each != "▫")
    assert shown.removeprefix("<|endoftext|>") == TEXT
    assert other.page.locator(".view b").count() == 0
    expect(other.page.locator(".choice")).not_to_contain_text("After the settings")  # nothing was chosen
    other.page.get_by_role("textbox", name="A text to look at").fill("x")
    other.press("Score it")
    expect(other.page.locator(".view .wait")).to_contain_text("This text has 1 tokens.")
    other.press("Back to the conversation")
    expect(other.box).to_be_visible()
    other.close()
    assert other.faults == []


def searched(visitor, strategy):
    visitor.choose("strategy", strategy)
    visitor.limit(16)
    visitor.ask("Repeat after me: red tea, red tea, green tea, red tea.")
    return Choices(visitor).show()


def test_a_beam_search_is_a_tree_with_a_step_slider(visitor):
    view = searched(visitor, "Diverse beam search")
    expect(view.choice).to_contain_text("Hypotheses here")
    said = "".join(view.tokens.all_text_contents())
    visitor.press("Tree")
    drawn, slider = view.view.locator(".picture svg"), view.view.get_by_role("slider", name="Step of the search")
    expect(view.view.locator(".hypotheses li").first).to_contain_text(said.partition("<")[0].strip())
    expect(view.view.locator(".groups span")).to_have_text(["Group 1", "Group 2"])
    expect(drawn.locator(".node.dead").first).to_be_attached()
    slider.fill("1")
    expect(view.view.locator(".hypotheses li")).to_have_count(4)
    expect(drawn.locator(".node")).to_have_count(4)
    expect(drawn.locator(".dead")).to_have_count(0)
    visitor.press("Later step")
    expect(drawn.locator(".column")).to_have_text(["1", "2"])
    expect(drawn.locator(".line")).to_have_count(drawn.locator(".node").count() - 4)
    visitor.tab.evaluate(f"{AXE}; 0")
    assert violations(visitor) == []
    assert visitor.tab.evaluate(CUT_RINGS, ".view") == []


def test_the_answer_is_the_best_hypothesis_also_where_the_search_went_on_after_its_end(visitor):
    visitor.choose("strategy", "Beam search")
    visitor.ask("What is top-p sampling?")
    view = Choices(visitor).show()
    said = "".join(view.tokens.all_text_contents())
    visitor.press("Tree")
    expect(view.view.locator(".hypotheses li").first).to_contain_text(said.partition("<")[0].strip())
    expect(view.view.locator(".hypotheses li").first).to_have_class("chosen")


def test_speculation_is_a_ribbon_of_passes(visitor):
    view = searched(visitor, "Prompt lookup")
    said = "".join(view.tokens.all_text_contents())
    expect(view.choice).to_contain_text(re.compile("Drafted, and accepted|Chosen by the model itself"))
    visitor.press("Passes")
    ribbon = view.view.locator(".ribbon")
    kept = "".join(ribbon.locator(".accepted, .own").all_text_contents()).replace("␣", " ").replace("↵", "\n")
    assert kept == said
    expect(view.view.locator(".count.with b")).to_have_text(f"{ribbon.locator('li').count()} passes")
    expect(view.view.locator(".sum")).to_contain_text("passes were saved.")
    visitor.tab.evaluate(f"{AXE}; 0")
    assert violations(visitor) == []


def test_what_another_machine_chose_is_said_in_a_sentence(parrot):
    parrot.ask("hello")
    parrot.press("Show choices")
    expect(parrot.page.locator(".view .wait")).to_contain_text("Choose a model that runs here.")


def test_the_view_is_for_keys_ears_and_fingers(visitor):
    view = sampled(visitor).show()
    visitor.tab.evaluate(f"{AXE}; 0")
    view.view.locator(".prompt summary").click()
    assert violations(visitor) == []
    assert visitor.tab.evaluate(CUT_RINGS, ".view") == []
    visitor.tab.set_viewport_size({"width": 390, "height": 800})
    boxes = [box for box in visitor.tab.evaluate(BOXES) if "Go on from" in box[0] or "token" in box[0]]
    assert len(boxes) > 5
