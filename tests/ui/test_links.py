"""Links: what stands in the address sets the page up, and `embed=1` gives a page for a frame."""

import contextlib
import re

import pytest
from playwright.sync_api import expect

from parley.models import registry
from parley.serving import turn
from tests.browser import Visitor
from tests.ui.test_conversations import Kept

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow
HELD = "LINKED"  # a stop text of a link


def applies(request):
    """Whether the page asks the server to apply the settings of a link with the stop text HELD."""
    asked = (request.post_data_json or {}).get("data") or [None]
    return isinstance(asked[0], str) and HELD in asked[0]


@contextlib.contextmanager
def held_settings(context):
    """Keeps the settings of links with the stop text HELD from the server until the function given is called."""
    held, released = [], []

    def hold(route):
        if applies(route.request) and not released:
            held.append(route)
        else:
            route.continue_()

    def release():
        assert held
        released.append(True)
        for route in held:
            route.continue_()

    context.route("**/gradio_api/run/**", hold)
    yield release
    context.unroute("**/gradio_api/run/**", hold)


@pytest.fixture
def opened(inside, chromium):
    """Opens the page at a query string."""
    visitors = []

    def open_tab(query, **look):
        visitors.append(Visitor(chromium, f"{inside.url}/{query}", **look))
        return visitors[-1]

    yield open_tab
    for visitor in visitors:
        visitor.close()


def test_a_link_sets_the_page_up_asks_once_and_names_what_it_refuses(opened):
    visitor = opened(
        "?model=budgie&strategy=beams&num_beams=3&top_p=7&temperatur=1&max_new_tokens=8&prompt=Hello&run=1"
    )
    expect(visitor.quiet).to_have_text(re.compile("Beam search · "))
    expect(visitor.questions).to_have_text(["Hello"])
    expect(visitor.setting("num_beams").locator("input[type=number]")).to_have_value("3")
    note = visitor.page.locator("#conversation-note")
    expect(note).to_contain_text("There is no setting called 'temperatur'.")
    expect(note).to_contain_text("Top-p must be a number from 0.05 to 1.0; 7.0 is not.")
    visitor.tab.reload()
    expect(visitor.questions).to_have_count(1)  # the stored conversation, which is not asked again
    visitor.until_free()
    expect(visitor.page.locator("#chat .bot-row:not(:has(.thought-group))")).to_have_count(1)


def test_before_the_settings_of_a_link_are_there_nothing_is_set_or_asked_without_them(opened, chromium):
    with held_settings(chromium) as release:
        visitor = opened(f"?model=budgie&strategy=beams&max_new_tokens=8&stop={HELD}")
        expect(visitor.page.locator("#settings")).to_have_attribute("inert", "")
        visitor.send("Hello")
        expect(visitor.box).to_have_value("Hello")  # it waits
        release()
    expect(visitor.quiet).to_have_text(re.compile("Beam search · "))
    expect(visitor.page.locator("#settings")).not_to_have_attribute("inert", "")


def test_where_the_settings_of_a_link_do_not_come_the_page_goes_on_without_them(opened, chromium):
    failed = []

    def fail(route):
        if applies(route.request):
            failed.append(True)
            route.fulfill(status=500, json={"error": None})
        else:
            route.continue_()

    chromium.route("**/gradio_api/run/**", fail)
    visitor = opened(f"?model=budgie&strategy=beams&max_new_tokens=8&stop={HELD}")
    visitor.ask("Hello")
    assert failed
    expect(visitor.page.locator("#settings")).not_to_have_attribute("inert", "")
    chromium.unroute("**/gradio_api/run/**", fail)


def test_without_run_the_message_waits_in_the_box(opened):
    visitor = opened("?prompt=Hello&model=nobody%2Fhere")
    expect(visitor.box).to_have_value("Hello")
    expect(visitor.page.locator("#conversation-note")).to_contain_text("There is no model called 'nobody/here' here.")
    expect(visitor.questions).to_have_count(0)


def test_a_copied_link_opens_the_same_settings(opened, chromium):
    visitor = opened("")
    chromium.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.choose("strategy", "Beam search")
    visitor.limit(9)
    visitor.box.fill("a first message")
    Kept(visitor).show().dialog.get_by_role("button", name="Copy link").click()
    expect(visitor.page.locator("#conversation-note")).to_contain_text("Copied.")
    link = visitor.tab.evaluate("navigator.clipboard.readText()")
    other = opened(link[link.index("?") :])
    expect(other.setting("strategy").locator("input")).to_have_value("Beam search")
    expect(other.setting("max_new_tokens").locator("input[type=number]")).to_have_value("9")
    expect(other.box).to_have_value("a first message")


def test_a_link_asks_nothing_inside_a_frame_that_is_not_visible(chromium, inside):
    with chromium.new_page() as tab:
        address = f"{inside.url}/?embed=1&model=parrot&prompt=Hello&run=1"
        tab.set_content(f"<div style='height: 4000px'></div><iframe src='{address}' width=700 height=500></iframe>")
        frame = tab.frame_locator("iframe")
        expect(frame.locator("#message textarea")).to_have_value("Hello")
        expect(frame.locator("#setting-model input")).to_have_value("Parrot (repeats you)")
        expect(frame.locator("#chip")).to_be_attached()
        assert frame.locator("#chat .user-row").count() == 0 and not turn.running()
        tab.locator("iframe").scroll_into_view_if_needed()
        expect(frame.locator("#chat .user-row")).to_have_count(1)
        expect(frame.locator("#chat .bot-row .prose").first).to_have_text("Hello")


def test_a_link_asks_only_where_that_costs_nothing(monkeypatch):
    assert all(turn.answers_at_once(registry.find(name)) for name in ("budgie", "parrot"))
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    monkeypatch.setenv("MODEL_IDS", "budgie,parrot,HuggingFaceTB/SmolLM2-360M-Instruct")
    *_, away = registry.models().values()
    assert not turn.answers_at_once(away)


def test_an_embedded_page_is_printed_whole(opened):
    visitor = opened("?embed=1&model=parrot", width=700, height=500)
    visitor.ask("A line.\n\n" * 80 + "The end.")
    visitor.tab.emulate_media(media="print")
    shown = visitor.tab.locator("button, input, textarea, footer, #settings, #message, #title")
    assert not any(each.is_visible() for each in shown.all())
    assert len(re.findall(rb"/Type\s*/Page\b", visitor.tab.pdf())) >= 3


def test_an_embedded_page_has_no_title_no_footer_and_does_not_grow(opened):
    visitor = opened("?embed=1", width=700, height=500)
    expect(visitor.page.locator("#title")).to_be_hidden()
    expect(visitor.page.locator("footer")).to_be_hidden()
    expect(visitor.page.locator("#settings")).to_be_hidden()  # a drawer
    assert visitor.tab.evaluate("document.documentElement.scrollHeight") <= 500
    visitor.ask("Hello, who are you?")
    assert visitor.tab.evaluate("document.documentElement.scrollHeight") <= 500
