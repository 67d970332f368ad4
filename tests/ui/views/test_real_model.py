"""The line under Budgie on a machine without a real model: what it says, fetches and leaves as it was."""

import re

import pytest
from playwright.sync_api import expect

from parley.models.catalogue.rows import REAL
from tests.browser import QUIET, Visitor
from tests.conftest import Space
from tests.standins.hub import HubStandIn, save_tiny_model

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

FIRST_PIECE = 12_000_000  # bytes: a download is reported in pieces of 10 MB
SIZE = re.compile(r"^\s*\d+(\.\d)? [GM]B\s*$")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    standin = HubStandIn()
    model = save_tiny_model(tmp_path_factory.mktemp("models") / "big", hidden_size=256, intermediate_size=4096)
    for row in REAL:  # which one is offered depends on the machine
        standin.add(row.id, model)
    yield standin
    standin.close()


def start(hub, folder, **environ):
    """The app as on a new machine."""
    named = {"MODEL_IDS": "", "DRAFT_MODELS": "", "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(folder)}
    return Space(**named | {"HF_ENDPOINT": hub.url} | environ)


@pytest.fixture(scope="module")
def fresh(hub, tmp_path_factory):
    running = start(hub, tmp_path_factory.mktemp("cache"))
    yield running
    running.close()


@pytest.fixture
def visit(chromium, fresh):
    visitors = []

    def open_tab(**look):
        visitors.append(Visitor(chromium, fresh.url, **look))
        visitors[-1].line = visitors[-1].page.locator("#real-model")
        visitors[-1].button = visitors[-1].line.get_by_role("button")
        return visitors[-1]

    yield open_tab
    for visitor in visitors:
        visitor.close()
    assert [fault for visitor in visitors for fault in visitor.faults] == []


def label(visitor):
    return visitor.button.inner_text().removeprefix("Fetch ")


def chosen(visitor):
    return visitor.setting("model").locator("input")


@pytest.mark.parametrize(("width", "height"), [(700, 500), (390, 800)])
def test_on_a_narrow_page_the_chip_stays_below_a_view(visit, width, height):
    visitor = visit(width=width, height=height)
    expect(visitor.button).to_be_visible()
    visitor.box.fill("Hello")
    visitor.press("Next token")
    expect(visitor.page.locator(".view .bars li").first).to_be_visible()
    view, chip = (visitor.page.locator(each).bounding_box() for each in (".view", "#chip"))
    assert view["y"] + view["height"] <= chip["y"]
    visitor.press("Back to the conversation")
    expect(visitor.button).to_be_visible()


def test_a_new_machine_answers_at_once_says_that_budgie_is_a_toy_and_offers_a_real_model(visit):
    for look in ({}, {"width": 700, "height": 500}, {"width": 390}):
        visitor = visit(**look)
        expect(chosen(visitor)).to_have_value("Budgie (bundled)")
        expect(visitor.line).to_contain_text("This is Budgie, a toy.")
        expect(visitor.line.locator("p").last).to_have_text(SIZE)
        expect(visitor.button).to_be_in_viewport(ratio=1)
        assert label(visitor) in [row.label for row in REAL]
    visitor.ask("Hello, who are you?")
    expect(visitor.quiet).to_have_text(QUIET)
    expect(visitor.line).to_be_visible()
    visitor.tab.emulate_media(media="print")
    expect(visitor.line).to_be_hidden()


def test_the_line_goes_with_budgie_and_comes_back_with_it(visit):
    visitor = visit()
    visitor.choose("model", "Parrot")
    expect(visitor.line).to_be_hidden()
    visitor.choose("model", "Budgie")
    expect(visitor.line).to_be_visible()


def test_real_models_come_first_in_the_list(visit):
    visitor = visit()
    chosen(visitor).click()
    names = visitor.page.get_by_role("option").all_inner_texts()
    assert [name.strip(" ✓\n") for name in names[-2:]] == ["Budgie (bundled)", "Parrot (repeats you)"]
    assert len(names) > 3


def test_where_the_hub_cannot_be_reached_the_click_says_so_and_nothing_is_lost(visit, hub):
    visitor = visit()
    visitor.ask("Hello, who are you?")
    visitor.box.fill("and then?")
    repos = [hub.repos[row.id] for row in REAL]
    for repo in repos:
        repo.status = 503
    visitor.button.click()
    expect(visitor.line).to_contain_text("The Hub fails with error 503. Try again in a few minutes")
    for repo in repos:
        repo.status = 0
    expect(visitor.button).to_be_enabled()
    expect(chosen(visitor)).to_have_value("Budgie (bundled)")
    expect(visitor.box).to_have_value("and then?")
    visitor.box.press("Enter")
    expect(visitor.questions).to_have_count(2)
    expect(visitor.quiet).to_have_text(QUIET)


def test_two_visitors_share_one_download_and_the_conversation_goes_on_with_the_real_model(visit, hub, chromium):
    first, second = visit(), visit()
    name = label(first)
    repo = hub.repos[next(row.id for row in REAL if row.label == name)]
    repo.hold_after = FIRST_PIECE
    before = len(repo.downloads())
    first.ask("Hello, who are you?")
    first.setting("temperature").locator("input[type=number]").fill("1.1")
    for visitor in (first, second):
        visitor.button.click()
        expect(visitor.line).to_have_text(re.compile(rf"Downloading {name}: [1-9]\d? % of \d+ MB…"))
        expect(visitor.button).to_be_hidden()
    first.setting("stop").locator("textarea").fill("END")
    first.ask("Tell me a story about an owl.")  # Budgie answers meanwhile
    expect(first.quiet).to_have_text(QUIET)
    repo.hold_after = None
    repo.released.set()
    for visitor in (first, second):
        expect(visitor.line).to_be_hidden()
        expect(chosen(visitor)).to_have_value(name)
    assert len(repo.downloads()) == before + 1
    expect(first.questions).to_have_count(2)
    expect(first.setting("temperature").locator("input[type=number]")).to_have_value("1.1")
    expect(first.setting("stop").locator("textarea")).to_have_value("END")
    first.limit(8)
    first.ask("and then?")
    expect(first.quiet).to_have_text(re.compile(rf"^\s*{re.escape(name)} · .* · \d+ tokens · "))
    expect(first.questions).to_have_count(3)
    expect(chosen(visit())).to_have_value("Budgie (bundled)")  # what a visitor downloads does not change the default


def test_without_a_network_the_line_offers_nothing(hub, tmp_path, chromium):
    offline = start(hub, tmp_path, HF_HUB_OFFLINE="1")
    try:
        visitor = Visitor(chromium, offline.url)
        expect(visitor.page.locator("#real-model")).to_have_text(re.compile(r"^\s*This is Budgie, a toy\.\s*$"))
        expect(visitor.page.locator("#real-model button")).to_be_hidden()
        assert visitor.faults == []
        visitor.close()
    finally:
        offline.close()
