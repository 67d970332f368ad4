"""Compare: the view of the page in which one question is answered in several columns."""

import json
import re
import urllib.parse

import pytest
from playwright.sync_api import expect

from parley.serving import turn
from parley.settings import OPTIONS
from parley.ui.views import compare
from tests.browser import Visitor
from tests.conftest import ROOT, Passes, until

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

STORY = "Tell me a story about an owl."
WORDS = re.compile(r"\w{2,}")
ATTACK = "<img src=x onerror='window.pwned = 1'><script>window.pwned = 1</script> <b>bold</b>"


class View:
    """The view, and what a person does in it."""

    def __init__(self, visitor):
        self.visitor, self.page, self.tab = visitor, visitor.page, visitor.tab
        self.box = self.page.locator("#compare")
        self.columns = self.box.locator(".column")
        self.question = self.box.locator(".question")
        self.go = self.box.locator(".go")
        self.says = self.box.locator(".says")
        self.texts = self.box.locator(".column .text")
        self.kept = self.box.locator(".keep:visible")

    def open(self, draft=""):
        self.visitor.box.fill(draft)
        self.page.locator("#open-compare").click()
        expect(self.box).to_be_visible()
        return self

    def ended(self):
        """Waits for all columns, and for what is measured of them."""
        expect(self.box.locator(".announced")).to_have_text(compare.TEXTS["over"])
        return self

    def run(self):
        self.go.click()
        expect(self.go).to_have_text(compare.TEXTS["stop"])
        return self.ended()

    def choose(self, column, strategy):
        self.columns.nth(column).locator(".choices select").first.select_option(strategy)

    def add(self, where, name, value):
        """Adds a setting to a column, or to all."""
        at = self.box.locator(".shared") if where is None else self.columns.nth(where)
        at.locator(".add-setting").select_option(name)
        at.get_by_label(OPTIONS[name].label, exact=True).last.fill(str(value))

    def setting(self, name, column=None):
        """The box of a setting in one column, or in all."""
        at = self.columns if column is None else self.columns.nth(column)
        return at.get_by_label(OPTIONS[name].label, exact=True)

    def figure(self, column, name):
        return self.columns.nth(column).locator("dl div", has_text=compare.VIEW_TEXTS[name]).locator("dd")


@pytest.fixture
def view(visitor):
    return View(visitor)


@pytest.fixture
def opened(inside, chromium):
    """Opens the page at a query string."""
    visitors = []

    def open_tab(query, **look):
        visitors.append(Visitor(chromium, f"{inside.url}/{query}", **look))
        return View(visitors[-1])

    yield open_tab
    for visitor in visitors:
        visitor.close()
    until(lambda: not turn.running())
    assert [fault for visitor in visitors for fault in visitor.faults] == []


def test_the_first_pill_is_a_lesson_and_escape_leads_back(view):
    view.page.locator("#chat .example").first.click()
    lesson = compare.FIRST_LESSON
    expect(view.question).to_have_value(lesson.question)
    expect(view.columns).to_have_count(len(lesson.columns))
    expect(view.says).to_contain_text(lesson.says)
    view.ended()
    for number in range(4):
        expect(view.texts.nth(number)).to_have_text(WORDS)
        for name in ("speed", "first", "logprob", "perplexity", "distinct", "repeated", "length"):
            expect(view.figure(number, name)).to_have_text(re.compile(r"\d"))
    expect(view.page.locator("#conversation")).to_be_hidden()
    view.tab.keyboard.press("Escape")
    expect(view.box).to_be_hidden()
    expect(view.visitor.box).to_be_visible()
    expect(view.visitor.questions).to_have_count(0)


@pytest.mark.parametrize("lesson", compare.LESSONS, ids=lambda lesson: lesson.name)
def test_every_lesson_shows_what_it_promises(view, lesson):
    view.open("").box.get_by_role("button", name=lesson.title).click()
    expect(view.columns).to_have_count(len(lesson.columns))
    expect(view.box).to_have_attribute("data-running", "")
    if lesson.name == "beams":
        expect(view.columns.first.locator(".beams li")).to_have_count(5)
    view.ended()
    for number in range(len(lesson.columns)):
        expect(view.texts.nth(number)).to_have_text(WORDS)
    if lesson.name == "sooner":
        assert len(set(view.texts.all_inner_texts())) == 1
        expect(view.figure(1, "drafts")).to_have_text(re.compile(r"\d+ of \d+ accepted"))


def test_columns_stream_side_by_side(view):
    view.tab.evaluate(
        """() => { window.together = 0; new MutationObserver(() => {
            const grown = [...document.querySelectorAll("#compare .column[data-running] .text")];
            together = Math.max(together, grown.filter((each) => each.textContent).length);
        }).observe(document.body, {subtree: true, childList: true, characterData: true}) }"""
    )
    view.open(STORY).run()
    assert view.tab.evaluate("together") == 2


def test_what_is_kept_is_the_conversation_and_goes_on(view, inside):
    view.open(STORY)
    view.add(None, "max_new_tokens", 20)
    view.choose(1, "sampling")
    view.add(1, "seed", 11)
    view.run()
    text = view.texts.nth(1).inner_text()
    view.kept.nth(1).click()
    expect(view.box).to_be_hidden()
    visitor = view.visitor
    expect(visitor.questions).to_have_text([STORY])
    expect(visitor.answer).to_have_text(text, use_inner_text=True)
    expect(visitor.quiet).to_contain_text("20 tokens")
    expect(visitor.setting("strategy").locator("input")).to_have_value("Sampling")
    expect(visitor.setting("max_new_tokens").locator("input[type=number]")).to_have_value("20")
    expect(visitor.setting("seed").locator("input")).to_have_value("11")
    ids = visitor.tab.evaluate("conversations.present().ids")
    visitor.press("Continue")
    visitor.until_free()
    expect(visitor.quiet).to_contain_text("40 tokens")
    assert visitor.answer.inner_text().startswith(text) and len(visitor.answer.inner_text()) > len(text)
    [session] = visitor.sessions
    assert list(inside.engine("budgie").prefix_cache.sequence(session))[: len(ids)] == ids  # and not their text
    visitor.press("Retry")
    visitor.until_free()
    expect(visitor.answer).to_have_text(text, use_inner_text=True)  # the same seed gives the same words
    visitor.tab.reload()
    expect(visitor.questions).to_have_text([STORY])


def test_the_last_question_is_answered_anew_as_another_version(view):
    visitor = view.visitor
    visitor.ask("My name is Ada.")
    visitor.ask("What is my name?")
    first = visitor.answer.inner_text()
    view.open()
    expect(view.question).to_have_value("What is my name?")
    expect(view.says).to_contain_text(compare.TEXTS["again"])
    view.run()
    expect(view.texts.last).to_contain_text("Ada")
    view.kept.last.click()
    expect(visitor.questions).to_have_text(["My name is Ada.", "What is my name?"])
    expect(visitor.page.locator("#chat .versions")).to_have_text(re.compile("2/2"))
    visitor.page.locator("#chat .versions").get_by_role("button").first.click()
    expect(visitor.answer).to_have_text(first, use_inner_text=True)


def test_a_new_question_reads_the_conversation_before_it(view):
    view.visitor.ask("My name is Ada.")
    view.open("What is my name?")
    expect(view.says).to_contain_text(compare.TEXTS["before"])
    view.run()
    expect(view.texts.first).to_contain_text("Ada")
    view.kept.first.click()
    expect(view.visitor.questions).to_have_text(["My name is Ada.", "What is my name?"])
    expect(view.visitor.box).to_have_value("")


def test_stop_ends_one_column_or_all(view, inside):
    view.visitor.choose("model", "endless")
    view.visitor.limit(4096)
    view.open(STORY)
    with Passes(inside.engine("endless").loaded.model) as passes:
        view.go.click()
        expect(view.texts.first).to_have_text(WORDS)
        expect(view.texts.last).to_have_text(WORDS)
        view.columns.first.locator(".stop").click()
        expect(view.columns.first.locator(".notices")).to_have_text("stopped")
        length = len(view.texts.last.inner_text())
        until(lambda: len(view.texts.last.inner_text()) > length)
        view.tab.keyboard.press("Escape")  # all, and the view stays
        view.ended()
        expect(view.columns.last.locator(".notices")).to_have_text("stopped")
        expect(view.kept).to_have_count(2)
        assert passes.count < 4000
    expect(view.figure(0, "logprob")).to_have_text(re.compile(r"-\d"))


def test_who_goes_back_while_it_runs_stops_it(view):
    view.visitor.choose("model", "endless")
    view.visitor.limit(4096)
    view.open(STORY).go.click()
    expect(view.texts.first).to_have_text(WORDS)
    view.box.locator(".back").click()
    until(lambda: not turn.running())
    expect(view.page.locator("#open-compare")).to_be_focused()


def test_a_sweep_fills_the_columns_with_values_of_one_setting(view):
    view.open(STORY).box.locator(".sweep summary").click()
    view.box.locator(".drawer input").nth(2).fill("5")
    view.box.locator(".fill").click()
    expect(view.columns).to_have_count(5)
    assert [float(each.input_value()) for each in view.setting("temperature").all()] == [0.2, 0.525, 0.85, 1.175, 1.5]
    for each in view.columns.all():
        expect(each.locator(".choices select").first).to_have_value("sampling")
    view.box.locator(".sweep summary").click()
    view.box.locator(".drawer select").select_option("num_beams")
    view.box.locator(".fill").click()
    assert [int(each.input_value()) for each in view.setting("num_beams").all()] == [2, 4, 5, 7, 8]
    expect(view.columns.first.locator(".choices select").first).to_have_value("beams")


def test_columns_are_added_and_removed(view):
    view.open(STORY)
    for count in range(3, 7):
        view.box.get_by_role("button", name=compare.TEXTS["add"]).click()
        expect(view.columns).to_have_count(count)
    expect(view.box.get_by_role("button", name=compare.TEXTS["add"])).to_be_disabled()
    for count in range(5, 1, -1):
        view.columns.first.locator(".remove").click()
        expect(view.columns).to_have_count(count)
    expect(view.columns.first.locator(".remove")).to_be_disabled()


def test_what_a_column_cannot_do_is_said_before_and_the_others_answer(view):
    view.open(STORY)
    view.choose(0, "prompt_lookup")
    view.columns.first.locator(".add-setting").select_option("model")
    view.setting("model", 0).select_option("stateful")
    refused = view.columns.first.locator(".refused")
    expect(refused).to_contain_text("keeps a state that cannot be taken back")
    view.run()
    expect(view.columns.first.locator(".error")).to_contain_text("keeps a state that cannot be taken back")
    expect(view.texts.last).to_have_text(WORDS)
    view.setting("model", 0).select_option("budgie")
    expect(refused).to_have_text("")
    view.add(0, "max_new_tokens", 9999)
    expect(refused).to_contain_text("Max new tokens must be")
    view.question.fill("")
    view.go.click()
    expect(view.says).to_contain_text("There is no question to answer")


def test_models_of_other_tokens_are_compared_by_bits_per_byte(opened):
    view = opened(f"?view=compare&prompt={STORY}&1.model=budgie&2.model=parrot&run=1").ended()
    expect(view.figure(0, "bits")).to_have_text(re.compile(r"\d\.\d\d"))
    expect(view.figure(1, "bits")).to_have_text(re.compile(r"\d\.\d\d"))
    expect(view.figure(0, "perplexity")).to_have_count(0)
    expect(view.says).to_contain_text("Bits per byte: all texts are scored by Budgie")
    expect(view.texts.nth(1)).to_have_text(STORY)


def test_a_link_opens_a_comparison_and_names_what_it_does_not_know(opened, chromium):
    shared = "seed=7&max_new_tokens=12&temperatur=1"
    view = opened(f"?view=compare&prompt={STORY}&{shared}&1.strategy=greedy&2.strategy=sampling&2.temperature=1.2")
    expect(view.columns).to_have_count(2)
    expect(view.says).to_contain_text("There is no setting called “temperatur”, so it was left out.")
    expect(view.setting("temperature", 1)).to_have_value("1.2")
    expect(view.box.locator(".shared").get_by_label(OPTIONS["max_new_tokens"].label, exact=True)).to_have_value("12")
    expect(view.texts.first).to_have_text("")  # it waits for a click
    view.run()
    expect(view.figure(0, "length")).to_have_text(re.compile("^12 tokens"))
    chromium.grant_permissions(["clipboard-read", "clipboard-write"])
    view.box.locator(".link").click()
    expect(view.says).to_contain_text("Copied.")
    link = urllib.parse.urlsplit(view.tab.evaluate("navigator.clipboard.readText()"))
    assert dict(urllib.parse.parse_qsl(link.query)) == {
        **{"view": "compare", "prompt": STORY, "seed": "7", "max_new_tokens": "12"},
        **{"1.strategy": "greedy", "2.strategy": "sampling", "2.temperature": "1.2"},
    }
    again = opened(f"?{link.query}")
    expect(again.setting("temperature", 1)).to_have_value("1.2")


def test_a_link_without_columns_says_how_they_are_named(opened):
    view = opened("?view=compare&seed=7")
    expect(view.says).to_contain_text("1.strategy=greedy&2.strategy=sampling")
    expect(view.columns).to_have_count(2)
    assert view.visitor.box.input_value() == ""


def test_differences_are_marked_and_texts_are_text(opened):
    query = urllib.parse.urlencode({"view": "compare", "prompt": ATTACK, "model": "parrot", "run": 1})
    view = opened(f"?{query}&1.max_new_tokens=100&2.max_new_tokens=6").ended()
    expect(view.texts.first).to_have_text(ATTACK)
    view.box.get_by_label(compare.TEXTS["differences"]).check()
    expect(view.columns.first.locator("mark")).to_have_text(re.compile("bold"))
    expect(view.texts.first).to_have_text(ATTACK)
    assert view.box.locator(".text :not(mark)").count() == 0
    assert view.tab.evaluate("window.pwned") is None
    view.box.get_by_label(compare.TEXTS["differences"]).uncheck()
    expect(view.box.locator("mark")).to_have_count(0)


@pytest.mark.parametrize("size", [(1280, 800), (700, 500), (390, 800)])
def test_it_fits_any_frame(opened, size):
    width, height = size
    two = "1.strategy=greedy&2.strategy=beams"
    view = opened(f"?view=compare&prompt={STORY}&seed=7&{two}&run=1", width=width, height=height).ended()
    first, second = (each.bounding_box() for each in view.columns.all())
    assert view.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert second["x"] + second["width"] <= width
    assert (first["x"] == second["x"]) == (width == 390), "stacked on a phone, side by side elsewhere"
    view.kept.last.scroll_into_view_if_needed()
    expect(view.kept.last).to_be_in_viewport()


def test_the_drawing_needs_neither_gradio_nor_the_page(opened, chromium):
    view = opened(f"?view=compare&prompt={STORY}&1.strategy=greedy&2.strategy=beams&run=1").ended()
    data = view.tab.evaluate("compare.data()")
    assert json.loads(json.dumps(data)) == data and data["over"]
    empty = chromium.new_page()
    empty.goto("about:blank")
    empty.add_script_tag(content=(ROOT / "parley/ui/views/compare_view.js").read_text())
    texts = compare.OF_AN_ANSWER | compare.VIEW_TEXTS | {"column": "Column {count}"}
    empty.evaluate("([data, texts]) => document.body.append(compareView.draw(data, { texts }))", [data, texts])
    assert empty.locator("h3").all_inner_texts() == ["Greedy", "Beam search"]
    assert [each.text_content() for each in empty.locator(".text").all()] == [each["text"] for each in data["columns"]]
    assert empty.locator("dl").count() == 2 and empty.locator(".beams li").count() == len(data["columns"][1]["beams"])
    empty.close()
