"""Whatever a model or a visitor writes: nothing runs, is fetched from elsewhere, covers the page or poses as it."""

import re

import pytest
from playwright.sync_api import expect

from tests.ui.hostile import OUTPUTS, outputs
from tests.ui.test_conversations import Kept
from tests.ui.views.test_saved_view import linked, opened, saved

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

TURNS = 10  # of one conversation: more would be folded
KEEP = """(conversations) => {
  for (const [k, texts] of conversations.entries()) {
    const nodes = {}, path = [];
    texts.forEach((text, i) => {
      for (const [n, role] of [[2 * i, "user"], [2 * i + 1, "assistant"]]) {
        const messages = [{ role, content: [{ type: "text", text }] }];
        nodes[n] = { id: String(n), parent: n ? String(n - 1) : null, role, made: n, messages, edited: true };
        path.push(String(n));
      }
    });
    const kept = { saved: 1, id: `h${k}`, title: `h${k}`, created: k, updated: k, draft: "", settings: null, nodes };
    localStorage.setItem(`parley.conversation.h${k}`, JSON.stringify({ ...kept, path }));
  }
}"""
TITLES = """(outputs) => outputs.forEach((title, i) => {
  const messages = [{ role: "user", content: [{ type: "text", text: title }] }];
  const nodes = { 0: { id: "0", parent: null, role: "user", made: 0, messages, edited: true } };
  const kept = { saved: 1, id: `t${i}`, title, created: i, updated: i, draft: "", settings: null, nodes, path: ["0"] };
  localStorage.setItem(`parley.conversation.t${i}`, JSON.stringify(kept));
})"""
# What no text of a stranger may make, within `within`: elements, attributes and addresses.
FOUND = """(within) => {
  const made = [], ours = ".copy_code_button, .copy_code_button *, .katex *";
  const bad = "script, style, link, meta, base, title, form, input, textarea, select, button, dialog, iframe, frame, "
    + "object, embed, video, audio, source, svg, foreignObject, [contenteditable], [popover], template, noscript";
  for (const root of document.querySelectorAll(within)) {
    for (const each of root.querySelectorAll("*")) {
      if (each.matches(bad) && !each.matches(ours)) made.push(each.outerHTML);
      for (const { name, value } of each.attributes) {
        if (/^on/i.test(name) || /^(ping|formaction|srcdoc)$/i.test(name)) made.push(each.outerHTML);
        const address = /^(href|src|xlink:href|action|data|poster)$/i.test(name) ? value.replace(/\\s/g, "") : "";
        if (/^[a-z]+:/i.test(address) && !/^(https?|mailto):/i.test(address)) made.push(each.outerHTML);
      }
    }
  }
  return made;
}"""
# The controls at whose middle something else lies.
COVERED = """(selectors) => selectors.filter((selector) => {
  const box = document.querySelector(selector).getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return !top?.closest(selector);
})"""
POINTED = "(links) => links.forEach((link) => link.dispatchEvent(new PointerEvent('pointerover', { bubbles: true })))"
SEEN_EACH = f"(rows, controls) => rows.flatMap((row) => (row.scrollIntoView(), ({COVERED})(controls)))"
CONTROLS = ["#message textarea", "#message .submit-button", "#setting-model", "#title", "#setting-temperature"]
TEXTS = "#chat .message .md, #chat .message .prose"


@pytest.fixture
def attacked(visit, elsewhere):
    """A visitor whose browser tells when it refuses a picture, and what was written against their page."""
    visitor = visit()
    evil = elsewhere.url
    visitor.expected = re.compile(
        f"Content Security Policy|left the origin: {evil}|Failed to load resource.*{evil}|LaTeX-"
    )
    visitor.tab.evaluate("localStorage.clear()")
    yield visitor, outputs(evil)
    visitor.tab.evaluate("localStorage.clear()")
    assert elsewhere.asked == []


def is_sound(visitor, within=TEXTS, controls=CONTROLS):
    """Nothing ran, nothing was made, nothing is covered, and the page is where it was."""
    assert visitor.tab.evaluate(FOUND, within) == []
    assert visitor.tab.evaluate(COVERED, controls) == []
    assert visitor.tab.evaluate("window.ran") is None
    assert visitor.tab.title() != "Another page"


def test_there_are_at_least_sixty_of_all_kinds():
    assert len({each for kind in OUTPUTS.values() for each in kind}) >= 60


def test_in_the_conversation(attacked):
    visitor, texts = attacked
    size = TURNS - 2  # the first question tells which conversation is shown, and the last answer that it is there
    parts = [texts[begin : begin + size] for begin in range(0, len(texts), size)]
    conversations = [[f"h{k}", *part, f"the end of h{k}"] for k, part in enumerate(parts)]
    visitor.tab.evaluate(KEEP, conversations)
    for k, asked in enumerate(conversations):
        kept = Kept(visitor).show()
        kept.page.get_by_role("button", name=f"h{k}", exact=True).click()
        expect(visitor.questions).to_have_count(len(asked))
        expect(visitor.questions.first).to_have_text(re.compile(f"h{k}"))
        expect(visitor.answer).to_have_text(f"the end of h{k}")
        visitor.page.locator(f":is({TEXTS}) a").evaluate_all(POINTED)
        rows = visitor.page.locator("#chat .bot-row")
        assert rows.count() == len(asked) and rows.evaluate_all(SEEN_EACH, CONTROLS) == []
        is_sound(visitor)
        assert visitor.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_while_it_is_written(attacked):
    """Half of a tag is on the page for a while."""
    visitor, texts = attacked
    visitor.choose("model", "Parrot")
    visitor.limit(4096)
    visitor.ask("\n\n".join(texts[:40]))
    visitor.expected = re.compile(
        f"{visitor.expected.pattern}|^404 |status of 404|left the origin: http://l"
    )  # half an address
    is_sound(visitor, controls=CONTROLS[:-1])
    visitor.folded.last.locator(".title").click()
    is_sound(visitor, "#chat .thought-group .md, #chat .thought-group .prose", CONTROLS[:-1])


def test_in_the_list_of_conversations(attacked):
    visitor, texts = attacked
    visitor.tab.evaluate(TITLES, texts)
    kept = Kept(visitor).show()
    expect(kept.entries).to_have_count(len(texts))
    shown = kept.entries.all_text_contents()
    assert shown == list(reversed(texts))
    is_sound(visitor, ".name", [])
    lying_over = """(names) => names.filter((name) => {
        name.scrollIntoView();
        const item = name.closest("li"), { x, y, width, height } = item.getBoundingClientRect();
        return !item.contains(document.elementFromPoint(x + width / 2, y + height / 2)) || name.scrollHeight > 200;
    }).map((name) => name.textContent)"""
    assert kept.entries.evaluate_all(lying_over) == []
    isolated = "(names) => names.every((name) => getComputedStyle(name).display !== 'inline')"
    assert kept.entries.evaluate_all(isolated)  # a bidi control ends with its entry
    assert visitor.tab.evaluate(COVERED, ["dialog[open] h2, [role=dialog] h2"]) == []


def test_in_a_comparison_and_where_it_is_saved_and_shared(attacked, chromium, tmp_path):
    visitor, texts = attacked
    visitor.tab.goto(f"{visitor.tab.url}?view=compare&model=parrot&1.seed=1&2.seed=2")
    box, said = visitor.page.locator("#compare"), "\n\n".join(texts)
    box.locator("textarea").fill(said)
    box.get_by_role("button", name="Compare", exact=True).click()
    for column in range(2):
        expect(box.locator(".column .text").nth(column)).to_contain_text("<script>window.ran = 1</script>")
        expect(box.locator(".column dl").nth(column)).to_contain_text("tokens/s")
    is_sound(visitor, "#compare .column .text", ["#compare textarea"])
    tab, asked = opened(chromium, saved(visitor, "Save view", tmp_path))
    expect(tab.locator(".comparison .text").first).to_contain_text("<script>window.ran = 1</script>")
    assert len(asked) == 1 and tab.evaluate("window.ran") is None and tab.evaluate(FOUND, ".text") == []
    tab.close()
    tab = linked(visitor, chromium)
    expect(tab.locator(".comparison .text").first).to_contain_text("<script>window.ran = 1</script>")
    assert tab.evaluate("window.ran") is None and tab.evaluate(FOUND, ".text") == []
    tab.close()


def test_in_the_views_of_tokens(attacked):
    visitor, texts = attacked
    said = "\n".join(each for each in texts if len(each) < 60)[:900]
    visitor.limit(4)
    visitor.ask(said)
    visitor.page.get_by_role("button", name="Show choices").last.click()
    view = visitor.page.locator(".view")
    view.locator(".prompt summary").click()
    prompt = view.get_by_role("listbox", name=re.compile("The prompt: "))
    expect(prompt).to_contain_text("<script>window.ran = 1</script>")
    is_sound(visitor, ".view .token, .view td", [])
    visitor.tab.keyboard.press("Escape")
    visitor.box.fill(said)
    visitor.press("Next token")
    expect(view.locator(".bars li").first).to_be_visible()
    is_sound(visitor, ".view .token, .view .bars li [translate]", [])
