"""What the page shows and lets through at any size, in any frame, whatever a model or a visitor writes."""

import re

import pytest
from playwright.sync_api import Error, expect

from tests.browser import QUIET
from tests.conftest import until

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow  # test_page.py holds the way of a message in the fast run


def test_every_script_is_shown_exactly(parrot):
    code = "def add(a, b):\n    if a:\n        return a + b\n    return '<b>&amp;</b>'"
    said = "สวัสดีครับ ภาษาไทย · こんにちは、カタカナ · 🙂👩‍👩‍👧🏳️‍🌈 · https://example.org/a_b?c=d&e=f#g"
    parrot.ask(f"{said}\n\n```python\n{code}\n```")
    expect(parrot.answer.locator("p").first).to_have_text(said)
    assert parrot.answer.locator("pre code").inner_text().rstrip("\n") == code
    assert parrot.questions.locator(".md").inner_text() == f"{said}\n\n```python\n{code}\n```"  # as it was typed
    parrot.ask("    four spaces before, two after  ")  # a question keeps them on its way through the page
    expect(parrot.answer.locator("pre code")).to_have_text("four spaces before, two after  ", use_inner_text=True)


def test_what_is_written_from_right_to_left_begins_on_the_right(visit):
    parrot = visit(width=390)
    parrot.choose("model", "Parrot")
    parrot.ask("אחת שתיים שלוש ארבע חמש שש שבע שמונה תשע עשר אחת עשרה")
    ends = """(e) => {
        const range = document.createRange();
        range.selectNodeContents(e);
        const lines = [...range.getClientRects()], [last, box] = [lines.at(-1), e.getBoundingClientRect()];
        return [lines.length, last.left - box.left > box.right - last.right];
    }"""
    assert parrot.answer.locator("p").evaluate(ends) == [2, True]


def test_html_and_scripts_in_a_question_and_in_an_answer_are_inert(parrot, inside, elsewhere):
    evil = elsewhere.url.removeprefix("http:")
    attack = (
        "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'><svg onload='window.pwned = 1'></svg>"
        "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe><a href='javascript:window.pwned = 1'>click</a>"
        "<style>#message { display: none }</style><form action='//evil/'><button>go</button></form>\n\n"
        "[link](javascript:window.pwned=1) ![](//evil/pixel.png) "
        "<div style='background: url(//evil/css.png)'>x</div> <b onmouseover='window.pwned = 1'>bold</b>"
    )
    attack = attack.replace("//evil", evil)
    parrot.ask(attack)
    expect(parrot.questions.last.locator(".md")).to_have_text(attack, use_inner_text=True)
    expect(parrot.answer).to_contain_text("<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>")
    parrot.tab.evaluate("document.querySelectorAll('#chat a').forEach((e) => e.click())")
    assert parrot.page.locator("#chat .bot-row :is(form, style, svg[onload], img[src=x], b)").count() == 0
    with parrot.tab.expect_console_message(lambda m: "form-action" in m.text):  # were there one, it could send nothing
        parrot.tab.evaluate(
            f"document.querySelector('#chat').insertAdjacentHTML('beforeend', '<form action={evil}></form>');"
            "document.querySelector('#chat form').submit()"
        )
    assert parrot.tab.evaluate("window.pwned") is None
    assert parrot.tab.url.startswith(inside.url)
    assert parrot.page.locator("#chat :is(script, iframe, [onerror], [onload], [href^=javascript])").count() == 0
    assert parrot.tab.evaluate("document.querySelector('#message').offsetHeight") > 20
    assert elsewhere.asked == []
    parrot.expected = re.compile(f"Content Security Policy|left the origin: http:{evil}")  # the browser's refusals


COVERS = (
    "<div style='position:fixed;inset:0;z-index:99999;background:#fff'>nothing to see</div>",
    "<a href='https://example.org' style='position:fixed;inset:0;z-index:99999'>x</a>",
    "<div style='position:absolute;top:-2000px;left:-2000px;width:9000px;height:9000px;z-index:99999'>x</div>",
)


@pytest.mark.parametrize("cover", COVERS)
def test_nothing_in_a_message_covers_the_page(parrot, cover):
    parrot.ask(f"{cover}\n\nthe end")
    expect(parrot.answer).to_contain_text("z-index")  # a tag is text; were it none, it could still cover nothing
    parrot.answer.evaluate("(answer, cover) => answer.insertAdjacentHTML('beforeend', cover)", cover)
    over = """(selector) => {
        const box = document.querySelector(selector).getBoundingClientRect();
        const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
        return Boolean(top?.closest(selector));
    }"""
    for selector in ("#message", "#setting-model", "#title"):
        assert parrot.tab.evaluate(over, selector)


def in_view(visitor):
    expect(visitor.box).to_be_in_viewport(ratio=1)
    expect(visitor.send_button).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 800)])
def test_the_box_is_always_in_view(visit, width, height):
    visitor = visit(width=width, height=height)
    expect(visitor.page.locator(".placeholder h2")).to_have_css("text-align", "center")
    in_view(visitor)
    visitor.choose("model", "Parrot")
    visitor.tab.evaluate("scrollTo(0, 0)")
    visitor.ask("A line.\n\n" * 25)
    in_view(visitor)
    assert visitor.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visitor.setting("model").is_visible() == (width > 860)  # on a narrow page it is in the drawer
    visitor.box.fill("a long message\n" * 30)
    in_view(visitor)


def test_what_went_wrong_stands_there_at_once_and_retry_under_it_does_not_move(visitor):
    """A button that moves between a finger's coming and going is not pressed."""
    visitor.setting("seed").locator("input").fill("-1")
    visitor.tab.evaluate(
        """() => { window.tops = []; const look = () => {
            const retry = document.querySelector('.bot-row:has(strong) + .message-buttons [aria-label=Retry]');
            if (retry?.offsetHeight) window.tops.push(retry.getBoundingClientRect().top);
            requestAnimationFrame(look);
        }; look() }"""
    )
    visitor.ask("hello")
    expect(visitor.error).to_have_text(re.compile("Seed must be"))
    until(lambda: visitor.tab.evaluate("window.tops.length") > 30)
    tops = visitor.tab.evaluate("window.tops")
    assert max(tops) - min(tops) < 1


def test_it_works_embedded_in_another_site_with_third_party_storage_blocked(visit, elsewhere):
    visitor = visit(within=elsewhere.url, width=700, height=500)
    in_view(visitor)
    visitor.ask("hello")
    expect(visitor.quiet).to_have_text(QUIET)
    visitor.choose("model", "Parrot")
    visitor.ask("A line.\n\n" * 25)
    visitor.tab.frames[1].evaluate("scrollTo(0, 0)")
    in_view(visitor)
    visitor.page.get_by_role("button", name="Conversations").click()
    expect(visitor.page.locator("#conversation-list")).to_contain_text("blocks storage here")
    with visitor.context.new_page() as bare:
        bare.goto(f"{elsewhere.url}/bare")
        with pytest.raises(Error, match="Access is denied"):
            bare.frames[1].evaluate("localStorage.length")


def test_the_embedding_page_of_the_examples_holds_a_talk(visit, elsewhere):
    visitor = visit(within=f"{elsewhere.url}/embed", width=900, height=800)
    visitor.ask("hello")
    expect(visitor.quiet).to_have_text(QUIET)
    frame = visitor.tab.locator("iframe")
    least = frame.bounding_box()["height"]
    visitor.choose("model", "Parrot")
    visitor.ask("A line.\n\n" * 12)
    until(lambda: frame.bounding_box()["height"] > least)
    visitor.ask("A line.\n\n" * 12)
    until(lambda: frame.bounding_box()["height"] == 802)  # with its border: as high as the page allows


def test_two_views_are_embedded_by_link(visit, elsewhere):
    visitor = visit(within=f"{elsewhere.url}/embed_two", width=1100, height=900)
    compared, tokens = (visitor.tab.frame_locator("iframe").nth(i) for i in range(2))
    for at in range(2):
        expect(compared.locator(".column dl").nth(at)).to_contain_text("tokens/s")
    visitor.tab.locator("iframe").nth(1).scroll_into_view_if_needed()
    expect(tokens.locator(".token-view .token").first).to_be_visible()


CONTRAST = """(e) => {
    const parts = (c) => c.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
    let behind = e;
    while (behind && (parts(getComputedStyle(behind).backgroundColor)[3] ?? 1) < 1) behind = behind.parentElement;
    let opaque = 1;
    for (let around = e; around; around = around.parentElement) opaque *= getComputedStyle(around).opacity;
    const back = parts(getComputedStyle(behind).backgroundColor);
    const ink = parts(getComputedStyle(e, e.placeholder && !e.value ? "::placeholder" : null).color);
    const [a, b] = [light(ink.map((v, i) => v * opaque + back[i] * (1 - opaque))), light(back)];
    return {contrast: (Math.max(a, b) + .05) / (Math.min(a, b) + .05), behind: b};
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_followed_and_readable(visit, scheme):
    visitor = visit(scheme=scheme)
    visitor.choose("model", "Parrot")
    visitor.ask("hello")
    visitor.quiet.click()
    visitor.press_tab("curl")
    shown = [
        visitor.box,
        visitor.answer.locator("p"),
        visitor.folded.get_by_role("link", name="curl"),
        visitor.folded.locator("code").last,
        visitor.page.get_by_role("link", name="Built with Gradio"),
        visitor.quiet,
        visitor.questions.locator(".md"),
        visitor.setting("model").locator(".info-text"),
        visitor.page.locator("#title p"),
    ]
    for text in shown:
        seen = text.evaluate(CONTRAST)
        assert seen["contrast"] >= 4.5, text
        assert (seen["behind"] > 0.5) == (scheme == "light")


def test_the_button_in_the_title_changes_the_colours_and_the_browser_keeps_the_choice(visit):
    visitor = visit(scheme="dark")
    body, button = visitor.page.locator("body"), visitor.page.get_by_role("button", name="Light or dark")
    dark = re.compile(r"\bdark\b")
    expect(body).to_have_class(dark)
    visitor.tab.emulate_media(color_scheme="light")  # nothing is chosen, so the page follows
    expect(body).not_to_have_class(dark)
    button.click()
    expect(body).to_have_class(dark)
    visitor.tab.emulate_media(color_scheme="dark")
    visitor.tab.emulate_media(color_scheme="light")
    expect(body).to_have_class(dark)
    visitor.tab.reload()
    expect(button).to_be_visible()
    expect(body).to_have_class(dark)
    button.click()
    expect(body).not_to_have_class(dark)


def test_the_footer_has_no_panel_for_developers(visitor):
    footer = visitor.page.locator("footer")
    expect(footer.get_by_role("link")).to_have_text(["Built with Gradio"])
    expect(footer.get_by_role("button")).to_have_count(0)


def test_the_whole_conversation_is_printed_and_nothing_else(visit):
    visitor = visit(scheme="dark", width=700, height=500)
    visitor.choose("model", "Parrot")
    visitor.tab.evaluate("scrollTo(0, 0)")
    for part in ("first", "last"):
        visitor.ask("A line.\n\n" * 30 + f"The {part} word. $x$ costs $5.")
    visitor.tab.emulate_media(media="print", color_scheme="dark")
    shown = visitor.tab.locator("button, input, textarea, footer, #settings, #message, #real-model")
    assert not any(each.is_visible() for each in shown.all())
    rows = visitor.tab.locator("#chat .message-row")
    height = visitor.tab.evaluate("document.documentElement.scrollHeight")
    assert rows.count() == 6
    for row in rows.all():
        box = row.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= height + 1
    for text in (visitor.questions.locator(".md").first, visitor.answer.locator("p").last, visitor.quiet):
        assert text.evaluate(CONTRAST)["behind"] == 1
        assert text.evaluate(CONTRAST)["contrast"] >= 4.5
    pages = re.findall(rb"/Type\s*/Page\b", visitor.tab.pdf(print_background=False))
    assert len(pages) >= height / 1100
