"""What a visitor waits for: the question in the same frame, the first text after one round trip."""

import re

import pytest
from playwright.sync_api import expect

from parley.serving import turn
from tests.browser import Visitor
from tests.conftest import until
from tests.line import Line

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

# What the first frame after a key shows: a message that is posted while it is made arrives when it has been painted.
FIRST_FRAME = """() => {
  const painted = new MessageChannel();
  painted.port1.onmessage = () => { window.frame = {
    question: document.querySelector("#chat .user-row .message")?.innerText.trim(),
    box: document.querySelector("#message textarea").value,
    stop: Boolean(document.querySelector("#message .stop-button")),
  } };
  const post = () => painted.port2.postMessage("");
  addEventListener("keypress", ({ key }) => key === "Enter" && requestAnimationFrame(post), true);
}"""
NOTE_FIRST_TEXT = """() => {
  const said = () => {
    const rows = [...document.querySelectorAll("#chat .message-row")];
    return rows.slice(rows.findLastIndex((row) => row.matches(".user-row")) + 1)
      .filter((row) => !row.querySelector(".thought-group")).map((row) => row.textContent).join("");
  };
  const before = said();
  window.sent = performance.now();
  performance.clearResourceTimings();
  new MutationObserver((_, watch) => {
    if ([before, ""].includes(said())) return;
    window.first = performance.now();
    watch.disconnect();
  }).observe(document.querySelector("#chat"), { subtree: true, childList: true, characterData: true });
}"""
# How many requests came one after the answer of another, from Send to the first text.
ROUND_TRIPS = """() => {
  const asked = performance.getEntriesByType("resource").filter((each) => each.startTime < first);
  const after = (end) => Math.max(0, ...asked.filter((each) => each.startTime >= end)
    .map((each) => 1 + after(each.responseStart)));
  return [after(sent), asked.map((each) => each.name)];
}"""


def test_the_question_is_shown_in_the_frame_of_the_key(visitor):
    visitor.tab.evaluate(FIRST_FRAME)
    visitor.send("Hello, who are you?")
    visitor.tab.wait_for_function("() => window.frame")
    assert visitor.tab.evaluate("frame") == {"question": "Hello, who are you?", "box": "", "stop": True}
    visitor.until_free()


@pytest.fixture
def far(chromium, inside):
    """A visitor at the other end of a long line."""
    line = Line(inside.url, round_trip=0.15)
    visitor = Visitor(chromium, line.url)
    visitor.limit(12)
    yield visitor
    visitor.close()
    line.close()
    assert visitor.faults == []
    until(lambda: not turn.running())


def test_the_first_text_comes_after_one_round_trip(far):
    far.ask("Hello, who are you?")  # the first one of all also fetches what shows an answer
    ways = {
        "send": lambda: far.send("Tell me a story about an owl."),
        "retry": lambda: far.press("Retry"),
        "continue": lambda: far.press("Continue"),
    }
    for way, start in ways.items():
        far.tab.evaluate(NOTE_FIRST_TEXT)
        start()
        expect(far.stop_button).to_be_visible()
        far.until_free()
        round_trips, asked = far.tab.evaluate(ROUND_TRIPS)
        assert round_trips == 1, (way, asked)


def test_a_first_turn_whose_stream_overtakes_it_is_read(far):
    far.tab.route("**/queue/join*", lambda route: (far.tab.evaluate("1"), route.continue_()))
    far.send("Hello, who are you?")
    expect(far.quiet).to_have_text(re.compile("12 tokens"))


def test_the_bytes_of_an_answer_grow_with_its_length_and_no_faster(parrot, unthrottled):
    protocol, received = parrot.context.new_cdp_session(parrot.tab), []
    protocol.send("Network.enable")
    protocol.on("Network.dataReceived", lambda event: received.append(event["dataLength"]))
    parrot.limit(4096)

    def cost(question):
        received.clear()
        parrot.ask(question)
        return sum(received)

    cost("owl")
    short, long, again = (cost("owl " * count) for count in (20, 80, 20))
    assert long <= 4 * short
    said = len("owl ") * 2 * (20 + 80)
    assert again <= short + 8 * said, "what was said before comes in the details and as tokens, once each"


def calls_for_each_update(visitor):
    """How many functions of the page run for each piece of an answer that comes."""
    protocol = visitor.context.new_cdp_session(visitor.tab)
    protocol.send("Profiler.enable")
    visitor.count_updates()
    visitor.send(f"{'owl ' * 200}")
    visitor.tab.wait_for_function("() => updates > 5")  # the question and what is folded are shown
    protocol.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": False})
    before = visitor.tab.evaluate("updates")
    visitor.tab.wait_for_function("(before) => updates > before + 30", arg=before)
    count = visitor.tab.evaluate("updates") - before
    scripts = protocol.send("Profiler.takePreciseCoverage")["result"]
    visitor.stop_button.click()
    visitor.until_free()
    return sum(each["ranges"][0]["count"] for script in scripts for each in script["functions"]) / count


def test_a_token_costs_little_more_in_a_long_conversation(parrot, unthrottled):
    parrot.limit(4096)
    alone = calls_for_each_update(parrot)
    parrot.open_long_conversation(60)
    parrot.choose("model", "Parrot")
    parrot.limit(4096)
    assert calls_for_each_update(parrot) < 3 * alone
