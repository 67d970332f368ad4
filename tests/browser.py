"""A visitor of the page: a real Chromium, and what a person does in it."""

import contextlib
import http.server
import itertools
import re
import shutil
import threading

import pytest
from playwright.sync_api import expect, sync_playwright

from parley.serving import turn
from tests.conftest import ROOT, Passes, lacking, until

# A conversation of so many turns, which the browser has kept.
LONG = """(turns) => {
  const nodes = {}, path = [], text = "The owl flew over the river and sat down beside the **lamp** in the window.";
  for (let i = 0; i < 2 * turns; i++) {
    const role = i % 2 ? "assistant" : "user", messages = [{ role, content: [{ type: "text", text }] }];
    nodes[i] = { id: String(i), parent: i ? String(i - 1) : null, role, made: i, messages, edited: true };
    path.push(String(i));
  }
  const kept = { saved: 1, id: "long", title: "", created: 1, updated: 1, draft: "", settings: null, nodes, path };
  localStorage.setItem("parley.conversation.long", JSON.stringify(kept));
}"""
COUNT_UPDATES = """() => {
  window.updates = 0;
  const received = turns.received;
  turns.received = (data) => { updates += Boolean(data?.[0]?.shown); return received(data) };
}"""

PATIENCE = 90_000  # ms; how long a condition may take on a busy machine, never how long anything has to take
NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = re.compile(r"^\s*(?:[^·]+ · ){1,2}\d+ tokens · \d+\.\d s(?: · \d+ tokens/s)?\s*$")  # of a finished answer

expect.set_options(timeout=PATIENCE)


@contextlib.contextmanager
def open_chromium():
    """Gives a fresh profile; the tabs in it share a cache, and nothing else that the page would use."""
    with sync_playwright() as playwright, launched(playwright.chromium) as context:
        yield context


@contextlib.contextmanager
def launched(kind, **how):
    """The same, of a browser of its own that is started in another way."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        lacking("no Chromium on this machine: apt-get install chromium")
    browser = kind.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"], **how)
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    yield context
    browser.close()


@pytest.fixture(scope="module")  # not longer: Playwright keeps an event loop in the thread of the tests
def chromium():
    with open_chromium() as context:
        yield context


class Visitor:
    """One tab, from opening the page to closing it. `faults` holds what no visit may cause."""

    def __init__(self, context, url, *, width=1280, height=800, scheme="light", within=None):
        self.context = context
        self.faults = []
        self.expected = re.compile("(?!)")  # those of them that a test provokes: none
        self.tab = context.new_page()
        self.tab.set_viewport_size({"width": width, "height": height})
        self.tab.emulate_media(color_scheme=scheme)
        self.tab.on("console", lambda m: m.type in ("error", "warning") and self.faults.append(m.text))
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("response", lambda r: r.status >= 400 and self.faults.append(f"{r.status} {r.url}"))
        allowed = (url.partition("?")[0], within or url, "data:", "blob:")
        self.tab.on("request", lambda r: r.url.startswith(allowed) or self.faults.append(f"left the origin: {r.url}"))
        self.sessions = set()  # as the server knows them: one, but for a page that was loaded again
        self.tab.on("request", self._note_session)
        self.tab.goto(within or url)
        self.page = self.tab.frame_locator("iframe").first if within else self.tab
        self.box = self.page.locator("#message textarea")
        self.send_button = self.page.locator("#message .submit-button")
        self.stop_button = self.page.locator("#message .stop-button")
        self.questions = self.page.locator("#chat .user-row")
        self.answer = self.page.locator("#chat .bot-row:not(:has(.thought-group)) .prose").last
        self.folded = self.page.locator("#chat .thought-group")  # thoughts, quiet lines, errors
        self.quiet = self.folded.last.locator(".title p")
        self.error = self.page.locator("#chat .thought-group:has(.title strong)")
        expect(self.page.locator("#setting-model input")).not_to_have_value("")

    def _note_session(self, request):
        if "/queue/" in request.url and request.post_data:
            self.sessions.add(request.post_data_json["session_hash"])

    def setting(self, name):
        return self.page.locator(f"#setting-{name}")

    @contextlib.contextmanager
    def settings(self):
        """The settings in reach: on a narrow page they are in a drawer, which is closed again at the end."""
        chip = self.page.locator("#chip")
        expect(chip).to_have_attribute("aria-haspopup", "dialog")  # only then it can be seen
        expect(self.page.locator("#chip:visible, #setting-model input:visible").first).to_be_attached()
        drawer = chip.is_visible() and chip.get_attribute("aria-expanded") != "true"
        if drawer:
            chip.click()
        yield
        if drawer:
            self.page.locator("#close-settings").click()

    def choose(self, name, label):
        with self.settings():
            self.setting(name).locator("input").click()
            name = re.escape(label).replace("/", r"\/")  # a bare one would end the pattern in JavaScript
            self.page.get_by_role("option", name=re.compile(f"^{name}")).click()

    def limit(self, tokens):
        """Sets max new tokens."""
        with self.settings():
            self.setting("max_new_tokens").locator("input[type=number]").fill(str(tokens))

    @contextlib.contextmanager
    def refused(self):
        """The server takes neither the next turn nor the page's second try, as one does that is full."""
        self.expected, count = re.compile("50[0-9]|Too busy"), itertools.count(1)
        answer = {"status": 503, "json": {"detail": "Too busy"}}
        self.tab.route("**/queue/join*", lambda route: route.fulfill(**answer), times=2)
        with self.tab.expect_response(lambda answer: answer.status == 503 and next(count) == 2):
            yield

    def open_long_conversation(self, turns):
        """Shows one that the browser has kept."""
        self.tab.evaluate(LONG, turns)
        self.tab.add_init_script('sessionStorage.setItem("parley.open", "long")')  # the page may still save its own
        self.tab.reload()
        expect(self.questions).to_have_count(turns)

    def count_updates(self):
        """Counts in `updates`, a variable of the page, the pieces of answers that come from now on."""
        self.tab.evaluate(COUNT_UPDATES)

    def send(self, text):
        self.box.fill(text)
        self.box.press("Enter")

    def ask(self, text):
        """Sends and waits for the end of the answer."""
        count = self.questions.count()
        self.send(text)
        expect(self.questions).to_have_count(count + 1)
        self.until_free()

    def until_free(self):
        expect(self.send_button).to_be_visible()
        expect(self.box).to_be_enabled()

    def press(self, label):
        self.page.get_by_role("button", name=label, exact=True).last.click()

    def press_tab(self, name):
        """Shows a part of the unfolded details of the last answer."""
        self.folded.last.get_by_role("link", name=name, exact=True).click()

    def close(self):
        self.tab.close()


@pytest.fixture
def visit(chromium, inside):
    """Opens a tab; at the end no tab may have met an error, or sent a request to another origin."""
    visitors = []

    def open_tab(**look):
        visitors.append(Visitor(chromium, inside.url, **look))
        return visitors[-1]

    yield open_tab
    for visitor in visitors:
        visitor.close()
    until(lambda: not turn.running())
    assert [fault for visitor in visitors for fault in visitor.faults if not visitor.expected.search(fault)] == []


@pytest.fixture
def visitor(visit):
    return visit()


@pytest.fixture
def parrot(visitor):
    visitor.choose("model", "Parrot")
    return visitor


@pytest.fixture
def chatterbox(visitor, inside):
    """A visitor of a model that never ends by itself, and the count of its forward passes."""
    visitor.choose("model", "endless")
    visitor.limit(4096)
    with Passes(inside.engine("endless").loaded.model) as passes:
        yield visitor, passes


@pytest.fixture
def elsewhere(inside):
    """A page of another site that embeds ours; at /bare, a part of it that has no script; at /embed…, our examples."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            framed = inside.url + ("/robots.txt" if self.path == "/bare" else "/")
            page = f"<body style='margin:0'><iframe src='{framed}' width=700 height=500>"
            if self.path.startswith("/embed"):
                page = (ROOT / "examples" / f"{self.path[1:]}.html").read_text()
                page = page.replace("http://127.0.0.1:7860", inside.url)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.asked = []
    server.url = f"http://localhost:{server.server_port}"  # another site than 127.0.0.1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
