"""No character of a message vanishes: what is mathematics, what is struck through, what is a tag."""

import json
import logging

import pytest
from playwright.sync_api import expect

from parley.ui import gradio_patches
from parley.ui.gradio_patches import PATCHES, Patch, patched
from tests.ui.test_look import CONTRAST

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

SHOWN = {  # the Markdown of an answer, and the Markdown that Gradio is given
    "$x$": r"\(x\)",
    "Let $a_1 + b_1 = \\frac{1}{2}$, and $\\{y\\}$.": r"Let \(a_1 + b_1 = \frac{1}{2}\), and \(\{y\}\).",
    "costs $5 and then $10": "costs $5 and then $10",
    "use $HOME or $PATH": "use $HOME or $PATH",
    "from $125K to $76K": "from $125K to $76K",
    "**$4** or **$5**": "**$4** or **$5**",
    "a \\$5 and b$": "a \\$5 and b$",
    "`$x$` and $$y$$": "`$x$` and $$y$$",
    "```\n$x$ ~1~ <b c>\n```\n$x$": "```\n$x$ ~1~ <b c>\n```\n" + r"\(x\)",
    "    $x$ <b c>\n": "    $x$ <b c>\n",
    "~~~\n~ $x$": "~~~\n~ $x$",
    "0.3~8 mm or 0.3~4.5 mm": r"0.3\~8 mm or 0.3\~4.5 mm",
    "(~20) and (~50), ~~struck~~": r"(\~20) and (\~50), ~~struck~~",
    "https://x.org/~a and ~b": r"https://x.org/~a and \~b",
    "if a<b then c>d": "if a&lt;b then c>d",
    "a<br>b H<sub>2</sub>O <b onclick=x>": "a<br>b H<sub>2</sub>O &lt;b onclick=x>",
    "<form><img src=x>": "&lt;form>&lt;img src=x>",
    "<https://x.org> <mailto:a@x.org>": "<https://x.org> <mailto:a@x.org>",
    r"\(a<b\) \[x^2\]": r"\(a<b\) \[x^2\]",
}


def test_the_text_is_prepared_so_that_all_of_it_is_shown(visitor):
    found = visitor.tab.evaluate("(texts) => texts.map(window.shownText)", list(SHOWN))
    assert dict(zip(SHOWN, found, strict=True)) == SHOWN


def test_mathematics_is_typeset_and_prices_are_not(parrot):
    parrot.ask(r"\(a_1 + b_1\), $x$ and \[x^2\]. It costs $5 and then $10; use $HOME or $PATH.")
    expect(parrot.answer.locator(".katex")).to_have_count(3)
    expect(parrot.answer).to_contain_text("It costs $5 and then $10; use $HOME or $PATH.")
    expect(parrot.questions.locator(".katex")).to_have_count(0)


def test_every_tilde_is_shown_and_two_strike(parrot):
    parrot.ask("0.3~8 mm or 0.3~4.5 mm, (~20) and (~50), ~~x~~")
    expect(parrot.answer).to_contain_text("0.3~8 mm or 0.3~4.5 mm, (~20) and (~50), x")
    expect(parrot.answer.locator("del")).to_have_text("x")


def test_what_was_typed_is_shown_as_it_was_typed_and_an_answer_loses_no_character(parrot):
    typed = "if a<b then c>d\n\n  __init__, 2*3*4, ~20~\n<script>x</script>"
    parrot.ask(typed)
    expect(parrot.questions.last.locator(".md")).to_have_text(typed, use_inner_text=True)
    expect(parrot.answer).to_contain_text("if a<b then c>d")
    expect(parrot.answer).to_contain_text("<script>x</script>")


ON_TOP = """(label) => {
    const { x, y, width, height } = label.getBoundingClientRect();
    return document.elementFromPoint(x + width / 2, y + height / 2) === label;
}"""


def test_a_block_of_code_says_its_language_and_is_copied_as_it_was_written(parrot):
    code = "    if a < b:\n        return '<b>&amp;</b>'"
    parrot.context.grant_permissions(["clipboard-read", "clipboard-write"])
    parrot.ask(f"```python\n{code}\n```\n\nand\n\n```\nplain\n```")
    blocks = parrot.answer.locator(".code_wrap")
    expect(blocks).to_have_count(2)
    language = parrot.answer.locator(".language")
    expect(language).to_have_text("python")
    assert language.evaluate(ON_TOP) and language.evaluate(CONTRAST)["contrast"] >= 4.5
    for block, copied in ((blocks.first, code), (blocks.last, "plain")):
        block.get_by_role("button", name="Copy code").click()
        parrot.tab.wait_for_function(f"async () => await navigator.clipboard.readText() === {json.dumps(copied)}")


def test_a_wide_table_scrolls_and_breaks_no_word(visit):
    parrot = visit(width=390, height=800)
    parrot.choose("model", "Parrot")
    words = [f"Donaudampfschifffahrt{n}" for n in range(5)]
    row = " | ".join(words)
    parrot.ask(f"| {row} |\n|{'---|' * 5}\n| {row} |")
    assert parrot.answer.locator("table").evaluate(
        """(table) => {
            const range = document.createRange();
            const lines = [...table.querySelectorAll("th, td")].map((cell) => {
                range.selectNodeContents(cell);
                return range.getClientRects().length;
            });
            const [page, scrolls] = [document.documentElement, table.scrollWidth > table.clientWidth];
            return [scrolls, Math.max(...lines), page.scrollWidth <= innerWidth];
        }"""
    ) == [True, 1, True]


def test_mathematics_is_typeset_while_the_answer_streams(parrot):
    parrot.limit(4096)
    parrot.send("Let $x_1$ be one. " + "Once upon a time there was a bird that could count. " * 60)
    expect(parrot.answer.locator(".katex")).to_have_count(1)
    expect(parrot.stop_button).to_be_visible()
    parrot.stop_button.click()
    parrot.until_free()


def test_every_correction_fits_the_pinned_version_of_gradio(caplog):
    with caplog.at_level(logging.WARNING, gradio_patches.__name__):
        scripts = patched()
    assert not caplog.records
    assert all(any(patch.new.encode() in script for script in scripts.values()) for patch in PATCHES)


def test_a_script_that_a_correction_does_not_fit_is_served_as_it_is(tmp_path, caplog):
    (tmp_path / "a-1.js").write_text("one one")
    (tmp_path / "b-1.js").write_text("two")
    rows = [Patch("a-*.js", "one", "1"), Patch("b-*.js", "two", "2"), Patch("c-*.js", "x", "y")]
    assert patched(rows, tmp_path) == {"b-1.js": b"2"}
    assert [record.args for record in caplog.records] == [("a-*.js",), ("c-*.js",)]
