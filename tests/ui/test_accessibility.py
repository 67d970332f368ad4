"""The page without a mouse, without eyes, and with large fingers."""

import re
from importlib import resources

import pytest
from playwright.sync_api import expect

from tests.browser import QUIET, Visitor
from tests.conftest import until
from tests.ui.test_look import CONTRAST

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
WORDS = re.compile(r"\w{2,}")
PRESSABLE = "a, button, input, textarea, [role=button]"
BOXES = f"""() => [...document.querySelectorAll("{PRESSABLE}")].flatMap((e) => {{
    if (!e.checkVisibility({{visibilityProperty: true}}) || e.closest("[inert]")) return [];
    const box = (/checkbox|radio/.test(e.type) ? e.closest("label") : e).getBoundingClientRect();
    return [[e.ariaLabel || e.innerText || e.id, box.width, box.height]];
}})"""
SEEN = """() => {
    const e = document.activeElement, style = getComputedStyle(e);
    const around = getComputedStyle(e.closest(".input-container") ?? e);
    return style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2 || around.borderTopWidth === "2px";
}"""
# What has room for less than a ring of four pixels at the edge of a box that cuts it off.
CUT_RINGS = """(within) => [...document.querySelector(within).querySelectorAll(
    "a, button, input, textarea, summary")].flatMap((e) => {
    if (!e.checkVisibility({visibilityProperty: true})) return [];
    let box = e.parentElement;
    while (box && getComputedStyle(box).overflowX === "visible") box = box.parentElement;
    if (!box) return [];
    const own = e.getBoundingClientRect(), left = box.getBoundingClientRect().left + box.clientLeft;
    const room = Math.min(own.left - left, left + box.clientWidth - own.right);
    return room < 3.5 ? [[e.ariaLabel || e.textContent, room]] : [];
})"""
COMPOSED = """(box) => {
    for (const key of ["Enter", "Escape", "ArrowUp", "ArrowDown"])
        for (const kind of ["keydown", "keypress", "keyup"])
            for (const how of [{isComposing: true}, {keyCode: 229}])
                box.dispatchEvent(new KeyboardEvent(kind, {key, bubbles: true, cancelable: true, ...how}));
}"""


LOOKS = ((390, "dark"), (1280, "light"))  # width and colours; the last one is what a visit begins with


def violations(visitor):
    """What axe calls serious or critical in each look, with where it is."""
    found = []
    for width, scheme in LOOKS:
        visitor.tab.set_viewport_size({"width": width, "height": 800})
        visitor.tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # no colour is on its way to another
        found += axe(visitor)
    return found


def axe(visitor):
    return visitor.tab.evaluate(
        """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
            .filter((found) => ["serious", "critical"].includes(found.impact))
            .map((found) => [found.id, ...found.nodes.map((node) => node.html.slice(0, 200))])"""
    )


def test_axe_finds_nothing_serious_in_any_state(visitor):
    visitor.tab.evaluate(f"{AXE}; 0")
    assert violations(visitor) == []
    visitor.ask("hello")
    visitor.quiet.click()
    expect(visitor.folded.get_by_role("link", name="curl")).to_be_visible()
    assert violations(visitor) == []
    visitor.page.locator("#show-conversations").click()
    assert violations(visitor) == []
    visitor.tab.keyboard.press("Escape")
    visitor.tab.set_viewport_size({"width": 390, "height": 800})
    visitor.page.locator("#chip").click()
    assert axe(visitor) == []  # with the drawer open, which only a narrow page has
    visitor.tab.keyboard.press("Escape")
    visitor.tab.set_viewport_size({"width": 1280, "height": 800})
    visitor.questions.first.hover()
    visitor.page.get_by_role("button", name="Edit").first.click()
    visitor.page.get_by_role("button", name="More settings").click()
    visitor.choose("strategy", "Watermark: green list")
    visitor.press("Check the last answer")
    expect(visitor.page.locator("#detected")).to_contain_text("tokens counted")
    assert violations(visitor) == []
    visitor.page.locator("#open-compare").click()
    visitor.page.locator("#compare .sweep summary").click()
    visitor.page.locator("#compare .add-setting").last.select_option("max_new_tokens")
    assert violations(visitor) == []
    visitor.page.locator("#compare .lesson").nth(2).click()
    expect(visitor.page.locator("#compare .beams li").first).to_be_visible()
    assert violations(visitor) == []
    expect(visitor.page.locator("#compare .keep").first).to_be_visible()
    visitor.page.locator("#compare .differ input").check()
    assert violations(visitor) == []
    visitor.tab.keyboard.press("Escape")
    visitor.choose("strategy", "Beam search")
    visitor.choose("model", "endless")
    visitor.choose("strategy", "Beam search")
    visitor.limit(4096)
    visitor.send("hello")
    expect(visitor.folded.filter(has_text="beams, ")).to_be_visible()
    assert violations(visitor) == []
    visitor.press("Stop")
    visitor.until_free()
    visitor.choose("strategy", "Sampling")
    with visitor.settings():
        visitor.setting("seed").locator("input").fill("-1")
    visitor.ask("hello")
    expect(visitor.error).to_be_visible()
    assert violations(visitor) == []


def test_the_keys_of_a_conversation(chatterbox):
    visitor, _ = chatterbox
    visitor.send("hello")
    expect(visitor.answer).to_have_text(WORDS)
    visitor.box.press("Escape")
    expect(visitor.quiet).to_have_text(re.compile("stopped"))
    visitor.until_free()
    visitor.choose("model", "Parrot")
    visitor.page.get_by_role("button", name="Retry").click()
    expect(visitor.answer).to_have_text("hello")
    visitor.until_free()
    expect(visitor.box).to_be_focused()
    edited = visitor.page.locator("#chat .edit-textarea")
    visitor.box.press("ArrowUp")
    expect(edited).to_be_focused()
    edited.fill("something else")
    edited.press("Escape")
    expect(edited).to_have_count(0)
    expect(visitor.box).to_be_focused()
    expect(visitor.questions).to_have_text(["hello"])
    visitor.box.press("ArrowUp")
    edited.fill("one")
    edited.press("Shift+Enter")
    edited.press_sequentially("two")
    edited.press("Enter")
    expect(visitor.questions.locator(".md")).to_have_text(["one\ntwo"], use_inner_text=True)
    expect(visitor.answer).to_have_text(re.compile(r"one\s*two"))
    visitor.until_free()
    visitor.quiet.focus()
    visitor.folded.last.locator(".title").press(" ")
    expect(visitor.folded.last.locator(".title")).to_have_attribute("aria-expanded", "true")


def test_while_an_input_method_composes_keys_belong_to_it(chatterbox):
    visitor, _ = chatterbox
    visitor.box.fill("こんにちは")
    visitor.box.evaluate(COMPOSED)
    expect(visitor.questions).to_have_count(0)
    visitor.box.press("Enter")
    expect(visitor.answer).to_have_text(WORDS)
    visitor.box.evaluate(COMPOSED)  # Escape would stop the answer, and ArrowUp in the empty box edit the question
    expect(visitor.stop_button).to_be_visible()
    visitor.box.press("Escape")
    visitor.until_free()
    visitor.box.press("ArrowUp")
    edited = visitor.page.locator("#chat .edit-textarea")
    edited.evaluate(COMPOSED)
    expect(edited).to_be_visible()
    edited.press("Escape")
    expect(edited).to_have_count(0)
    chosen = visitor.setting("strategy").locator("input")
    chosen.fill("Wasser")
    chosen.evaluate(COMPOSED)
    expect(chosen).to_have_value("Wasser")
    expect(visitor.questions).to_have_count(1)


def test_a_finished_answer_is_announced_once_and_its_tokens_are_not(parrot):
    expect(parrot.page.get_by_role("log")).to_have_attribute("aria-live", "off")
    parrot.tab.evaluate(
        """() => { window.said = []; const status = document.querySelector("#announced");
            new MutationObserver(() => status.textContent && window.said.push(status.textContent))
                .observe(status, {childList: true, characterData: true, subtree: true}) }"""
    )
    story = "Once upon a time there was a bird that could count. " * 8
    parrot.ask(story)
    until(lambda: parrot.tab.evaluate("window.said.length"))
    parrot.choose("model", "Budgie")
    with parrot.settings():
        parrot.setting("seed").locator("input").fill("-1")
    parrot.ask("hello")
    until(lambda: parrot.tab.evaluate("window.said.length") > 1)
    answer, error = parrot.tab.evaluate("window.said")
    assert answer == story.strip()
    assert re.search("Could not finish.*Seed must be", error, re.DOTALL)
    message = parrot.page.get_by_role("group", name="Answer")
    expect(message.first).to_contain_text("Once upon a time")


def test_each_control_shows_that_it_has_the_focus(visitor):
    visitor.ask("hello")
    visitor.quiet.click()
    expect(visitor.quiet).to_have_text(QUIET)
    visitor.page.locator("#colours").focus()
    for _ in range(80):
        visitor.tab.keyboard.press("Tab")
        focused = visitor.tab.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        if "built-with" in focused:
            break
        assert visitor.tab.evaluate(SEEN), focused
    else:
        pytest.fail("the footer is not reached")


def test_icons_are_seen_and_fingers_press_what_they_mean(chromium, inside):
    context = chromium.browser.new_context(has_touch=True, is_mobile=True, locale="de-DE")
    for width, scheme in ((390, "light"), (1280, "dark")):
        visitor = Visitor(context, inside.url, width=width, height=800, scheme=scheme)
        visitor.ask("hello")
        visitor.page.get_by_role("button", name="Retry").click()
        expect(visitor.page.get_by_role("group", name="Versions")).to_be_visible()
        visitor.until_free()
        visitor.quiet.click()
        expect(visitor.folded.get_by_role("link", name="curl")).to_be_visible()
        visitor.page.locator("#show-conversations").click()
        assert [box for box in visitor.tab.evaluate(BOXES) if min(box[1:]) < 32] == []
        visitor.tab.keyboard.press("Escape")
        for icon in visitor.page.locator("#chat .icon-button-wrapper button, #colours").all():
            assert icon.evaluate(CONTRAST)["contrast"] >= 3
        with visitor.settings():
            visitor.setting("seed").locator("input").fill("-1")
        visitor.ask("hello")
        expect(visitor.error).to_be_visible()
        expect(visitor.page.get_by_role("button", name="Retry")).to_contain_class("icon-button")
        boxes = visitor.tab.evaluate(BOXES)
        assert len(boxes) > 20
        assert [box for box in boxes if min(box[1:]) < 32] == []
        visitor.page.locator("#open-compare").click()
        visitor.page.locator("#compare .lesson").nth(1).click()
        expect(visitor.page.locator("#compare .keep")).to_have_count(2)
        visitor.page.locator("#compare .sweep summary").click()
        boxes = visitor.tab.evaluate(BOXES)
        assert len(boxes) > 15
        assert [box for box in boxes if min(box[1:]) < 32] == []
        visitor.close()
        assert visitor.faults == []
    context.close()
