"""A saved view opens offline as a page of its own, with no request, and its figures are a table."""

import csv

import pytest
from playwright.sync_api import expect

from tests.browser import Visitor

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

HOSTILE = "</script><script>window.ran = 1</script>"


@pytest.fixture
def visitor(chromium, inside):
    visitor = Visitor(chromium, inside.url)
    yield visitor
    visitor.tab.evaluate("localStorage.clear()")
    visitor.close()


def saved(visitor, name, folder):
    """The file that this button saves."""
    with visitor.tab.expect_download() as download:
        visitor.page.get_by_role("button", name=name, exact=True).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def opened(chromium, path):
    """The page of this file in a browser without a network, and what it asked for beside itself."""
    tab, asked = chromium.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    chromium.set_offline(True)
    tab.goto(path.as_uri())
    chromium.set_offline(False)
    return tab, asked


def test_a_comparison(visitor, chromium, tmp_path):
    visitor.tab.goto(f"{visitor.tab.url}?view=compare&model=parrot&1.seed=1&2.seed=2")
    box = visitor.page.locator("#compare")
    box.locator("textarea").fill(HOSTILE)
    box.get_by_role("button", name="Compare", exact=True).click()
    for column in range(2):
        expect(box.locator(".column .text").nth(column)).to_have_text(HOSTILE)
        expect(box.locator(".column dl").nth(column)).to_contain_text("tokens/s")
    tab, asked = opened(chromium, saved(visitor, "Save view", tmp_path))
    expect(tab.locator(".comparison .text")).to_have_text([HOSTILE, HOSTILE])
    expect(tab.locator(".comparison dl").first).to_have_text(
        box.locator(".column dl").first.inner_text(), use_inner_text=True
    )
    assert len(asked) == 1 and tab.evaluate("window.ran") is None
    tab.close()
    rows = list(csv.DictReader(saved(visitor, "CSV", tmp_path).open(newline="")))
    assert [(row["model"], row["text"]) for row in rows] == [("Parrot (repeats you)", HOSTILE)] * 2


def test_the_choices_of_an_answer(visitor, chromium, tmp_path):
    visitor.ask("Hello!")
    visitor.page.get_by_role("button", name="Show choices").click()
    tokens = visitor.page.locator(".token-view .token")
    expect(tokens.first).to_be_attached()
    tab, asked = opened(chromium, saved(visitor, "Save view", tmp_path))
    expect(tab.locator(".token")).to_have_count(tokens.count())
    tab.locator(".tokens").last.locator(".token").first.hover()
    expect(tab.locator(".choice")).to_contain_text("By the model")
    assert len(asked) == 1
    tab.close()
    rows = list(csv.DictReader(saved(visitor, "CSV", tmp_path).open(newline="")))
    assert len(rows) == tokens.count() and float(rows[-1]["logprob"]) <= 0
