"""What a reader sees of a strategy while it runs, and of what ran."""

import re

import pytest
from playwright.sync_api import expect

from parley.settings import OPTIONS
from parley.strategies import STRATEGIES
from tests.browser import QUIET, Visitor
from tests.conftest import until
from tests.strategies.loops import LOOPS

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow  # test_page.py holds the way of a message in the fast run


@pytest.fixture(scope="module")
def tab(chromium, inside):
    """One tab for all strategies, talking with a model that never ends by itself."""
    visitor = Visitor(chromium, inside.url)
    visitor.choose("model", "endless")
    expect(visitor.setting("model")).to_contain_text("reads 8,192 tokens")  # its own settings are there as well
    visitor.page.get_by_role("button", name="More settings").click()
    visitor.limit(4096)
    yield visitor
    visitor.close()
    assert visitor.faults == []


def test_every_strategy_shows_its_settings(tab):
    for row in STRATEGIES.values():
        tab.choose("strategy", row.label)
        expect(tab.setting("strategy")).to_contain_text(row.summary)
        for each in OPTIONS.values():
            if not each.rare and each.name not in ("model", "mode", "strategy", "thinking", "system_prompt"):
                shown = expect(tab.setting(each.name))
                shown.to_be_visible() if each.name in row.uses else shown.to_be_hidden()


@pytest.mark.parametrize(
    "name", [n if n in ("greedy", "beams", "assisted") else pytest.param(n, marks=pytest.mark.slow) for n in LOOPS]
)
def test_every_loop_streams_and_stops_on_the_page(tab, name):
    tab.choose("strategy", STRATEGIES[name].label)
    # Else it goes round, which is drafted so well that the answer may be over before it can be stopped.
    never_twice = "3" if name == "greedy" else "0"
    tab.setting("no_repeat_ngram_size").locator("input[type=number]").fill(never_twice)
    count = tab.questions.count()
    tab.send("Tell me a story about an owl.")
    expect(tab.questions).to_have_count(count + 1)
    expect(tab.answer).to_have_text(re.compile(r"\w{3,}.*\w{3,}", re.DOTALL))
    expect(tab.stop_button).to_be_visible()
    tab.stop_button.click()
    tab.until_free()
    expect(tab.quiet).to_contain_text("stopped")
    tab.press("New conversation")
    expect(tab.questions).to_have_count(0)


BEAMS = re.compile(r"candidates")


def test_the_beams_are_open_while_they_run_and_fold_at_the_end(chatterbox):
    visitor, _ = chatterbox
    visitor.choose("strategy", "Beam search")
    visitor.send("Tell me a story about an owl.")
    beams = visitor.folded.filter(has_text=BEAMS)
    rows = beams.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_be_visible()  # without a click
    expect(beams.locator(".title")).to_contain_text("4 beams, 4 candidates")
    before = rows.first.inner_text()
    assert re.match(r"-\d\.\d\d\s+goes on\s+\w+", before)
    expect(rows.first).not_to_have_text(before)
    # The cells are made anew again and again. What is no longer shown has no colour.
    grey_and_dark = """(row) => {
        const [common, own] = ["i", "b"].map((tag) => row.querySelector(tag))
            .map((part) => part && getComputedStyle(part));
        return Boolean(common?.color && own?.color && common.color !== own.color);
    }"""
    until(lambda: rows.first.evaluate(grey_and_dark))
    visitor.stop_button.click()
    visitor.until_free()
    expect(rows.first).to_be_hidden()
    beams.locator(".title").click()
    shown = " ".join(visitor.answer.inner_text().split())
    assert shown and shown in " ".join(rows.first.inner_text().split())


def test_the_answer_of_a_beam_search_is_its_best_hypothesis(visitor):
    visitor.choose("strategy", "Diverse beam search")
    visitor.ask("Tell me a story about an owl.")
    beams = visitor.folded.filter(has_text=BEAMS)
    beams.locator(".title").click()
    best = beams.locator("tbody tr").first.locator("td")
    expect(best.nth(1)).to_have_text("✓ finished")
    expect(best.nth(2)).to_have_text(" ".join(visitor.answer.inner_text().split()))
    expect(visitor.quiet).to_have_text(QUIET)


def test_what_ran_can_be_unfolded_and_nothing_in_it_is_markup(visitor):
    typed = "say ``` <b>hi</b> <|im_end|> | **x**"
    visitor.choose("strategy", "Greedy")
    visitor.ask(typed)
    visitor.quiet.click()
    expect(visitor.folded.last.get_by_role("link")).to_have_count(6)
    blocks = visitor.folded.last.locator("pre code")
    expect(blocks).to_have_count(5)
    ways = {
        "transformers": "AutoModelForCausalLM.from_pretrained",
        "gradio_client": "import Client",
        "curl": "curl -s",
    }
    parts = {"Prompt": f"<|im_start|>user\n {typed}<|im_end|>", "Settings": "do_sample=False"} | ways
    for n, (name, part) in enumerate(parts.items()):
        visitor.press_tab(name)
        expect(blocks.nth(n)).to_contain_text(part)
        assert [blocks.nth(i).is_visible() for i in range(5)] == [i == n for i in range(5)]
        assert visitor.folded.last.locator(".md").last.evaluate("(part) => part.offsetHeight") <= 320


def test_drafts_are_counted_under_the_answer(visitor):
    visitor.choose("strategy", "Assisted decoding")
    visitor.ask("Hello, who are you?")
    visitor.quiet.click()
    expect(visitor.folded.last.locator("ul")).to_contain_text(re.compile(r"Drafts: [1-9]\d* of \d+ accepted"))


def test_words_that_must_occur_do_on_the_page_too(visitor):
    visitor.choose("strategy", "Constrained beam search")
    visitor.setting("force_words").locator("textarea").fill("lantern")
    visitor.limit(60)
    visitor.ask("Hello, who are you?")
    expect(visitor.answer).to_contain_text("lantern")
