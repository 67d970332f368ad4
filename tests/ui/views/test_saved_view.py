"""A saved view opens offline as a page of its own, with no request, and its figures are a table."""

import csv
from xml.etree import ElementTree

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


def press(visitor, name):
    saves = visitor.page.locator(".saves:visible")
    if saves.get_attribute("open") is None:
        saves.locator("summary").click()
    saves.get_by_role("button", name=name, exact=True).click()


def saved(visitor, name, folder):
    """The file that this button saves."""
    with visitor.tab.expect_download() as download:
        press(visitor, name)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


class Drawing:
    """What stands in a file of SVG, which has neither scripts nor references."""

    def __init__(self, path):
        whole = ElementTree.parse(path).getroot()
        tags = [each.tag.rpartition("}")[2] for each in whole.iter()]
        assert not {"script", "foreignObject", "image", "use", "style"} & set(tags)
        self.texts = ["".join((each.text or "").split()) for each in whole.iter() if each.tag.endswith("}text")]
        self.num_boxes = tags.count("rect")


def linked(visitor, chromium):
    """The page that the copied link opens."""
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press(visitor, "Copy link with result")
    expect(visitor.page.locator(".saves:visible")).to_contain_text("Copied")
    address = visitor.tab.evaluate("navigator.clipboard.readText()")
    assert "/shared/" in address and len(address) < 60_000
    tab = chromium.new_page()
    tab.goto(address)
    return tab


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
    drawn = Drawing(saved(visitor, "SVG", tmp_path))
    assert "".join(drawn.texts).count(HOSTILE.replace(" ", "")) == 2
    assert drawn.texts.count("Sampling") == 2  # the names of the columns
    tab = linked(visitor, chromium)
    expect(tab.locator(".comparison .text")).to_have_text([HOSTILE, HOSTILE])
    expect(tab.locator("#about")).to_contain_text("Nothing was computed here.")
    assert tab.evaluate("window.ran") is None
    tab.close()


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
    drawn = Drawing(saved(visitor, "SVG", tmp_path))
    answer = visitor.page.locator(".tokens").last.inner_text()
    assert "".join(answer.split()) in "".join(drawn.texts)
    assert drawn.num_boxes > 5  # tints and bars
    tab = linked(visitor, chromium)
    expect(tab.locator(".token")).to_have_count(tokens.count())
    tab.locator(".tokens").last.locator(".token").first.hover()
    expect(tab.locator(".choice")).to_contain_text("By the model")
    tab.close()


def test_a_saved_view_can_be_read_in_the_dark(visitor, chromium, tmp_path):
    visitor.ask("Hello!")
    visitor.page.get_by_role("button", name="Show choices").click()
    expect(visitor.page.locator(".token-view .token").first).to_be_attached()
    tab, _ = opened(chromium, saved(visitor, "Save view", tmp_path))
    darkest = tab.locator('.scale [data-level="4"]')
    expect(darkest).to_have_css("background-color", "rgb(224, 136, 58)")
    tab.emulate_media(color_scheme="dark")
    expect(darkest).to_have_css("background-color", "rgb(138, 84, 12)")
    tab.close()


def test_a_link_that_was_cut_off_says_so(visitor, chromium):
    for letters in ("", "3ytLLSpW", "%00"):
        tab = chromium.new_page()
        tab.goto(f"{visitor.tab.url.partition('?')[0]}shared/choices#{letters}")
        expect(tab.locator("main")).to_contain_text("This link is damaged or was cut off.")
        tab.close()


def test_a_view_that_is_too_large_for_a_link_says_so(visitor):
    visitor.tab.goto(f"{visitor.tab.url}?view=compare&model=parrot&1.seed=1&2.seed=2")
    box = visitor.page.locator("#compare")
    box.locator("textarea").fill("".join(map(chr, range(0x4E00, 0x9FFF))))
    box.get_by_role("button", name="Compare", exact=True).click()
    expect(box.locator(".column dl").last).to_contain_text("tokens/s")
    press(visitor, "Copy link with result")
    expect(box.locator(".saves")).to_contain_text("is too long; 60,000 are allowed. Save the view instead.")


def test_the_bars_of_the_next_token_as_a_drawing_and_a_table(visitor, tmp_path):
    visitor.box.fill("Hello")
    visitor.page.get_by_role("button", name="Next token").click()
    bars = visitor.page.locator(".next-view .bars > li:not(.others)")
    expect(bars.first).to_be_visible()
    drawn = Drawing(saved(visitor, "SVG", tmp_path))
    first = bars.first.locator(".share").last.inner_text()
    assert first in drawn.texts
    rows = list(csv.DictReader(saved(visitor, "CSV", tmp_path).open(newline="")))
    assert len(rows) == bars.count()


@pytest.mark.parametrize(("strategy", "part"), [("Diverse beam search", "Tree"), ("Prompt lookup", "Passes")])
def test_a_tree_and_passes_are_tables_too(visitor, tmp_path, strategy, part):
    visitor.choose("strategy", strategy)
    visitor.limit(16)
    visitor.ask("Repeat after me: red tea, red tea, green tea, red tea.")
    answer = visitor.answer.inner_text()
    visitor.page.get_by_role("button", name="Show choices").click()
    visitor.press(part)
    rows = list(csv.DictReader(saved(visitor, "CSV", tmp_path).open(newline="")))
    chosen = {"Tree": ("chosen", ["true"]), "Passes": ("kind", ["accepted", "own"])}[part]
    said = "".join(row["text"].lstrip("'") for row in rows if row[chosen[0]] in chosen[1])
    assert len(answer) > 20 and said.partition("<|")[0].strip() == answer.strip()
    assert len(rows) > len([row for row in rows if row[chosen[0]] in chosen[1]]) or part == "Passes"
