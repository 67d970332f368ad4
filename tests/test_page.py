"""The page as a visitor sees it: a real Chromium against the app, which runs in this process to be looked into."""

import http.server
import json
import re
import shutil
import threading
import time

import pytest
from playwright.sync_api import Error, expect

from parley import turn
from parley.settings import OPTIONS
from parley.ui import controls
from tests.browser import Visitor, chromium  # noqa: F401  (a fixture)
from tests.conftest import ROOT, Passes, until

STORY = "Once upon a time there was a bird that could count. " * 8
QUIET = re.compile(r"^\s*\d+ tokens · \d+ tokens/s · first after \d+\.\d\d s · finished\s*$")
WORDS = re.compile(r"\w{2,}")


@pytest.fixture
def visit(chromium, inside):  # noqa: F811
    """Opens a tab; at the end no tab may have met an error, or sent a request to another origin."""
    visitors = []

    def open_tab(**look):
        visitors.append(Visitor(chromium, inside.url, **look))
        return visitors[-1]

    yield open_tab
    for visitor in visitors:
        visitor.close()
    until(lambda: not turn._cancels)
    assert [fault for visitor in visitors for fault in visitor.faults if not visitor.expected.search(fault)] == []


@pytest.fixture
def visitor(visit):
    return visit()


@pytest.fixture
def parrot(visitor):
    visitor.choose("model", "Parrot")
    return visitor


@pytest.fixture
def endless(visitor, inside):
    """A visitor of a model that never ends by itself, and the count of its forward passes."""
    visitor.choose("model", "endless")
    with Passes(inside.engine("endless").loaded.model) as passes:
        yield visitor, passes


@pytest.fixture
def elsewhere(inside):
    """A page of another site that embeds ours, and (at /bare) a part of our site that has no script."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            framed = inside.url + ("/robots.txt" if self.path == "/bare" else "/")
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<body style='margin:0'><iframe src='{framed}' width=700 height=500>".encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.asked = []
    server.url = f"http://localhost:{server.server_port}"  # another site than 127.0.0.1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def prompts_of(model):
    """Starts to note what a model is given to read; returns the list and the hook."""
    seen = []
    return seen, model.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["input_ids"][0]), with_kwargs=True
    )


def test_an_example_starts_a_talk_and_one_quiet_line_stands_under_the_answer(visitor):
    visitor.page.get_by_role("button", name="Hello, who are you?").click()
    expect(visitor.questions).to_have_text("Hello, who are you?")
    expect(visitor.quiet).to_have_text(QUIET)
    assert visitor.answer.inner_text().strip()
    details = visitor.folded.get_by_text("Prompt:")
    expect(details).to_be_hidden()
    visitor.quiet.click()
    expect(details).to_have_text(re.compile(r"Prompt: \d+ tokens\. Answer: \d+ tokens in \d+\.\d s\. Seed: \d+\."))


def test_an_answer_grows_on_the_page_before_it_ends(parrot):
    parrot.tab.evaluate(
        """() => { window.lengths = new Set(); new MutationObserver(() => {
            const said = document.querySelector('#chat .bot-row:not(:has(.thought-group)) .prose');
            if (said) window.lengths.add(said.textContent.trim().length);
        }).observe(document.querySelector('#chat'), {subtree: true, childList: true, characterData: true}) }"""
    )
    parrot.ask(STORY)
    expect(parrot.answer).to_have_text(STORY.strip())
    lengths = parrot.tab.evaluate("[...window.lengths]")
    assert len(lengths) > 3
    assert lengths == sorted(lengths)


def test_stop_keeps_the_text_and_the_talk_goes_on_from_it(endless, inside):
    visitor, passes = endless
    engine = inside.engine("endless")
    visitor.send("hello")
    expect(visitor.answer).to_have_text(WORDS)
    at_click = passes.count
    visitor.stop_button.click()
    until(lambda: not turn._cancels)
    print(f"from the click on Stop to the end of the model: {passes.count - at_click} forward passes")
    expect(visitor.quiet).to_have_text(re.compile("· stopped"))
    visitor.until_free()
    kept, counted = visitor.answer.inner_text(), passes.count
    seen, hook = prompts_of(engine.loaded.model)
    visitor.send("and then?")
    until(lambda: seen)
    hook.remove()
    prompt = engine.loaded.tokenizer.decode(seen[0])
    assert " ".join(kept.split())[:40] in " ".join(prompt.split())
    visitor.stop_button.click()
    visitor.until_free()
    assert counted < 900, "it would have run to the end of the context"


def test_a_closed_tab_ends_the_model(endless):
    visitor, passes = endless
    visitor.send("hello")
    expect(visitor.answer).to_have_text(WORDS)
    visitor.close()
    at_close, began = passes.count, time.monotonic()
    until(lambda: not turn._cancels)
    print(f"after the tab closed: {passes.count - at_close} forward passes, {time.monotonic() - began:.2f} s")
    assert passes.count < 900


def test_retry_answers_the_last_question_again(visitor, inside):
    visitor.ask("hello")
    with Passes(inside.engine("budgie").loaded.model) as passes:
        visitor.press("Retry")
        until(lambda: passes.count)
        expect(visitor.quiet).to_have_text(QUIET)
    expect(visitor.questions).to_have_text(["hello"])
    expect(visitor.folded).to_have_count(1)


def test_undo_takes_the_last_question_back_into_the_box(parrot):
    parrot.ask("one")
    parrot.ask("two")
    parrot.press("Undo")
    expect(parrot.box).to_have_value("two")
    expect(parrot.questions).to_have_text(["one"])
    expect(parrot.answer).to_have_text("one")


def test_an_edited_question_is_answered_anew_and_what_followed_it_is_gone(parrot):
    parrot.ask("one")
    parrot.ask("two")
    parrot.questions.first.hover()
    parrot.page.get_by_role("button", name="Edit").first.click()
    parrot.page.locator("#chat .user-row textarea").fill("three")
    parrot.press("Submit")
    expect(parrot.questions).to_have_text(["three"])
    expect(parrot.answer).to_have_text("three")
    expect(parrot.quiet).to_have_text(QUIET)


def test_copy_takes_the_answer(parrot):
    parrot.context.grant_permissions(["clipboard-read", "clipboard-write"])
    parrot.ask("<think>Polly thinks</think>Polly wants\n\n* a **cracker**")
    parrot.press("Copy message")
    assert parrot.tab.evaluate("navigator.clipboard.readText()").strip() == "Polly wants\n\n* a **cracker**"


def test_clearing_while_an_answer_runs_leaves_an_empty_page_that_works(parrot):
    parrot.send(STORY * 10)
    expect(parrot.answer).to_have_text(re.compile("Once"))
    parrot.press("Clear")
    parrot.until_free()
    expect(parrot.questions).to_have_count(0)
    assert not turn._cancels
    parrot.ask("again")
    expect(parrot.questions).to_have_text(["again"])
    expect(parrot.answer).to_have_text("again")


def test_what_is_typed_while_an_answer_runs_stays_in_the_box(parrot):
    parrot.send(STORY * 3)
    expect(parrot.stop_button).to_be_visible()
    parrot.send("my next thought")
    parrot.stop_button.click()
    parrot.until_free()
    expect(parrot.quiet).to_have_text(re.compile("stopped"))
    expect(parrot.box).to_have_value("my next thought")
    expect(parrot.questions).to_have_count(1)


def test_a_message_that_does_not_fit_stands_there_with_a_sentence_and_retry_works(visitor):
    visitor.ask("word " * 3000)
    expect(visitor.error).to_have_text(re.compile(r"needs \d+ tokens, but Budgie.* reads at most \d+"))
    assert visitor.questions.inner_text().count("word") == 3000
    visitor.choose("model", "Parrot")
    visitor.setting("max_new_tokens").locator("input[type=number]").fill("5")
    visitor.press("Retry")
    expect(visitor.quiet).to_have_text(re.compile("reached max new tokens"))
    expect(visitor.error).to_have_count(0)


def test_an_exception_in_the_model_keeps_the_partial_answer_and_reaches_the_page_at_once(visitor, inside):
    """The forward pass of the real engine raises, as a GPU that fails does, once some of the answer is shown."""
    model = inside.engine("endless").loaded.model
    raised = []
    armed = threading.Event()

    def explode(*_):
        if armed.is_set():
            raised.append(time.monotonic())
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    visitor.choose("model", "endless")
    hook = model.register_forward_hook(explode)
    try:
        visitor.send("tell me everything")
        expect(visitor.answer).to_have_text(WORDS)
        armed.set()
        expect(visitor.error).to_have_text(re.compile("Something went wrong inside Parley"))
        print(f"from the exception to the page: {time.monotonic() - raised[0]:.2f} s")
    finally:
        hook.remove()
    visitor.until_free()
    expect(visitor.questions).to_have_text(["tell me everything"])
    assert len(visitor.answer.inner_text()) > 1
    assert "CUDA" not in visitor.page.locator("body").inner_text()
    visitor.choose("model", "Budgie")
    visitor.press("Retry")
    expect(visitor.quiet).to_have_text(QUIET)
    expect(visitor.error).to_have_count(0)


def test_settings_that_a_strategy_does_not_use_are_hidden(visitor):
    drawn = ("temperature", "top_p", "top_k", "min_p", "seed")
    visitor.choose("strategy", "Sampling")
    for name in drawn:
        expect(visitor.setting(name)).to_be_visible()
    expect(visitor.setting("seed").locator("input")).to_have_value("")
    visitor.choose("strategy", "Greedy")
    for name in drawn:
        expect(visitor.setting(name)).to_be_hidden()
    for name in ("repetition_penalty", "max_new_tokens", "stop", "system_prompt"):
        expect(visitor.setting(name)).to_be_visible()


def test_the_thinking_switch_is_there_only_for_a_template_that_reads_one(visitor):
    switch = visitor.setting("thinking").locator("input")
    switch.check()
    visitor.choose("model", "Parrot")
    expect(switch).to_be_hidden()
    visitor.ask("I have no such switch, and am not asked to think")
    expect(visitor.answer).to_have_text("I have no such switch, and am not asked to think")
    visitor.choose("model", "Budgie")
    expect(switch).to_be_visible()
    expect(switch).not_to_be_checked()


def test_a_template_without_the_switch_hides_it_and_the_models_own_sampling_is_the_default(tmp_path, monkeypatch):
    folder = tmp_path / "plain"
    shutil.copytree(ROOT / "parley" / "budgie" / "weights", folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.3, "top_p": 0.8, "top_k": 20})
    )
    monkeypatch.setenv("MODEL_IDS", f"budgie,{folder}")
    budgie, plain = (dict(zip(OPTIONS, controls.for_model(name), strict=True)) for name in ("budgie", str(folder)))
    assert budgie["thinking"]["visible"] and not plain["thinking"]["visible"]
    assert plain["thinking"]["value"] is False
    assert [plain[n]["value"] for n in ("strategy", "temperature", "top_p", "top_k")] == ["sampling", 0.3, 0.8, 20]
    assert plain["min_p"]["value"] == OPTIONS["min_p"].default


def test_a_thought_is_folded(parrot):
    parrot.ask("<think>a secret thought</think>The answer is 7.")
    expect(parrot.answer).to_have_text("The answer is 7.")
    thought = parrot.folded.first
    expect(thought.locator(".title")).to_have_text("Thought")
    expect(thought.get_by_text("a secret thought")).to_be_hidden()
    thought.locator(".title").click()
    expect(thought.get_by_text("a secret thought")).to_be_visible()


def test_every_script_is_shown_exactly(parrot):
    code = "def add(a, b):\n    if a:\n        return a + b\n    return '<b>&amp;</b>'"
    said = "สวัสดีครับ ภาษาไทย · こんにちは、カタカナ · 🙂👩‍👩‍👧🏳️‍🌈 · https://example.org/a_b?c=d&e=f#g"
    parrot.ask(f"{said}\n\n```python\n{code}\n```")
    expect(parrot.answer.locator("p").first).to_have_text(said)
    assert parrot.answer.locator("pre code").inner_text().rstrip("\n") == code
    assert parrot.questions.locator("pre code").inner_text().rstrip("\n") == code
    parrot.ask("    four spaces before, two after  ")  # a question keeps them on its way through the page
    expect(parrot.answer.locator("pre code")).to_have_text("four spaces before, two after  ", use_inner_text=True)


def test_html_and_scripts_in_a_question_and_in_an_answer_are_inert(parrot, inside, elsewhere):
    evil = elsewhere.url.removeprefix("http:")
    attack = (
        "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'><svg onload='window.pwned = 1'></svg>"
        "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe><a href='javascript:window.pwned = 1'>click</a>"
        "<style>#message { display: none }</style><form action='//evil/'><button>go</button></form>\n\n"
        "[link](javascript:window.pwned=1) ![](//evil/pixel.png) "
        "<div style='background: url(//evil/css.png)'>x</div> <b onmouseover='window.pwned = 1'>bold</b>"
    )
    parrot.ask(attack.replace("//evil", evil))
    parrot.tab.evaluate("document.querySelectorAll('#chat :is(a, b)').forEach((e) => e.click() + e.onmouseover?.())")
    with parrot.tab.expect_console_message(lambda m: "form-action" in m.text):
        parrot.tab.evaluate("document.querySelector('#chat form button').click()")
    assert parrot.tab.evaluate("window.pwned") is None
    assert parrot.tab.url.startswith(inside.url)
    assert parrot.page.locator("#chat :is(script, iframe, [onerror], [onload], [href^=javascript])").count() == 0
    assert parrot.tab.evaluate("document.querySelector('#message').offsetHeight") > 20
    assert elsewhere.asked == []
    # What the browser tells of its refusals, and of the picture `x`, which our own server does not have.
    parrot.expected = re.compile(f"Content Security Policy|left the origin: http:{evil}|/x$|404")


def in_view(visitor):
    expect(visitor.box).to_be_in_viewport(ratio=1)
    expect(visitor.send_button).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 800)])
def test_the_box_is_always_in_view(visit, width, height):
    visitor = visit(width=width, height=height)
    in_view(visitor)
    visitor.choose("model", "Parrot")
    visitor.tab.evaluate("scrollTo(0, 0)")
    visitor.ask("A line.\n\n" * 25)
    in_view(visitor)
    assert visitor.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beside = visitor.setting("model").bounding_box()["y"] < height
    assert beside == (width > 860)
    visitor.box.fill("a long message\n" * 30)
    in_view(visitor)


def test_it_works_embedded_in_another_site_with_third_party_storage_blocked(visit, elsewhere):
    visitor = visit(within=elsewhere.url, width=700, height=500)
    in_view(visitor)
    visitor.ask("hello")
    expect(visitor.quiet).to_have_text(QUIET)
    visitor.choose("model", "Parrot")
    visitor.ask("A line.\n\n" * 25)
    visitor.tab.frames[1].evaluate("scrollTo(0, 0)")
    in_view(visitor)
    with visitor.context.new_page() as bare:
        bare.goto(f"{elsewhere.url}/bare")
        with pytest.raises(Error, match="Access is denied"):
            bare.frames[1].evaluate("localStorage.length")


CONTRAST = """(e) => {
    const parts = (c) => c.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
    let behind = e;
    while (behind && (parts(getComputedStyle(behind).backgroundColor)[3] ?? 1) < 1) behind = behind.parentElement;
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(parts(getComputedStyle(behind).backgroundColor))];
    return {contrast: (Math.max(a, b) + .05) / (Math.min(a, b) + .05), behind: b};
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_followed_and_readable(visit, scheme):
    visitor = visit(scheme=scheme)
    visitor.choose("model", "Parrot")
    visitor.ask("hello")
    shown = [
        visitor.answer.locator("p"),
        visitor.quiet,
        visitor.questions.locator("p"),
        visitor.setting("model").locator(".info-text"),
        visitor.page.locator("#title p"),
    ]
    for text in shown:
        seen = text.evaluate(CONTRAST)
        assert seen["contrast"] >= 4.5, text
        assert (seen["behind"] > 0.5) == (scheme == "light")
