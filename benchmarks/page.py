"""What a visitor of the page waits for: `python -m benchmarks.page` prints it beside something to compare.

- The first text of Budgie over a line of 150 ms a round trip, beside loopback.
- A key stroke and a streamed update with 200 turns on the page, beside an empty page.
- From navigation to a box that takes text, beside an empty `gr.ChatInterface`.
- From a slider to the picture of the next token, with Budgie and with the real model of 135 million parameters.

Each round opens both in turn, in one Chromium whose cache has seen the page before.
"""

import argparse
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from benchmarks import real_model
from tests.browser import Visitor, open_chromium
from tests.conftest import Space, free_port
from tests.line import Line

ROUND_TRIP = 0.15  # seconds
TURNS = 200
STOCK = """
import gradio as gr
gr.ChatInterface(lambda message, history: message).launch(server_port={port}, quiet=True)
"""
# Resolves with the milliseconds from navigation until the box can be typed into.
USABLE = """() => new Promise((done) => {
  const look = () => {
    const box = document.querySelector("textarea:not(:disabled):not([aria-hidden])");
    if (box?.getClientRects().length) {
      box.focus();
      if (document.activeElement === box) return done(performance.now());
    }
    requestAnimationFrame(look);
  };
  look();
})"""
FIRST_TEXT = """() => {
  const sent = performance.now(), rows = () => [...document.querySelectorAll("#chat .message-row")];
  const count = document.querySelectorAll("#chat .user-row").length;
  window.first = new Promise((done) => new MutationObserver((_, watch) => {
    const last = rows().slice(rows().findLastIndex((row) => row.matches(".user-row")) + 1);
    if (document.querySelectorAll("#chat .user-row").length === count) return;
    if (!last.some((row) => !row.querySelector(".thought-group") && row.textContent.trim())) return;
    watch.disconnect();
    done((performance.now() - sent) / 1000);
  }).observe(document.querySelector("#chat"), { subtree: true, childList: true, characterData: true }));
}"""


# Moves top-k, and resolves with the seconds until the bars are painted.
SLIDE = """(value) => new Promise((done) => {
  const range = document.querySelector('#setting-top_k input[type="range"]'), began = performance.now();
  new MutationObserver((_, watch) => {
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
  }).observe(document.querySelector(".bars-place"), { childList: true });
  range.value = value;
  range.dispatchEvent(new Event("input", { bubbles: true }));
})"""
MOVES = 12


def first_text(visitor: Visitor) -> float:
    """Seconds from Send to the first text."""
    visitor.tab.evaluate(FIRST_TEXT)
    visitor.send("Tell me a story about an owl.")
    seconds = visitor.tab.evaluate("first")
    visitor.until_free()
    return seconds


def busy_seconds(visitor: Visitor, work: Callable[[Visitor], int]) -> float:
    """Seconds of the page's thread for each of what `work` counts."""
    protocol = visitor.context.new_cdp_session(visitor.tab)
    protocol.send("Performance.enable")

    def busy() -> float:
        metrics = protocol.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in metrics if each["name"] == "TaskDuration")

    began = busy()
    count = work(visitor)
    return (busy() - began) / count


def typed(visitor: Visitor) -> int:
    """Types a line; the number of its characters."""
    line = "What did the owl see beside the river?"
    visitor.box.press_sequentially(line, delay=20)
    return len(line)


def streamed(visitor: Visitor) -> int:
    """Takes a part of a long answer; the number of its updates."""
    visitor.count_updates()
    visitor.box.fill("owl " * 300)
    visitor.box.press("Enter")
    visitor.tab.wait_for_function("() => updates > 40")
    return visitor.tab.evaluate("updates")


def redrawn(context: Any, url: str, model: str) -> list[float]:
    """Seconds from each move of a slider to the picture of the next token."""
    visitor = Visitor(
        context, f"{url}/?view=next&model={quote(model)}&prompt=Tell%20me%20a%20story%20about%20an%20owl."
    )
    visitor.page.locator(".bars li").first.wait_for()
    found = [visitor.tab.evaluate(SLIDE, 3 + each) for each in range(MOVES + 4)][4:]
    visitor.close()
    return found


@contextmanager
def stock_page() -> Iterator[str]:
    """An empty `gr.ChatInterface`."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", STOCK.format(port=port)])
    url = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.2)  # between two looks at a condition
        yield url
    finally:
        process.terminate()
        process.wait()


def usable(context: Any, url: str) -> float:
    """Seconds from navigation to a box that takes text."""
    tab = context.new_page()
    tab.goto(url, wait_until="commit")
    seconds = tab.evaluate(USABLE) / 1000
    tab.close()
    return seconds


def report(name: str, ours: list[float], theirs: list[float]) -> None:
    """Prints both medians, their difference and their ratio."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(f"{name}: {mine:.4f} s, beside {other:.4f} s: {mine - other:+.3f} s, {mine / other:.2f}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    real = real_model.folder()
    space = Space(MODEL_IDS=f"budgie,parrot,{real}")
    line = Line(space.url, ROUND_TRIP)
    try:
        with open_chromium() as context, stock_page() as stock:
            pairs = [(usable(context, space.url), usable(context, stock)) for _ in range(rounds + 1)][1:]
            report("box usable, beside gr.ChatInterface", *map(list, zip(*pairs, strict=True)))
            far, near = Visitor(context, line.url), Visitor(context, space.url)
            pairs = [(first_text(far), first_text(near)) for _ in range(rounds + 1)][1:]
            report("first text over 150 ms, beside loopback", *map(list, zip(*pairs, strict=True)))
            far.close()
            near.close()
            for name, most in (("budgie", 0.15), (real.name, 0.4)):
                seconds = statistics.median(redrawn(context, space.url, name))
                print(f"slider to picture with {name}: {seconds:.3f} s, at most {most} s", flush=True)
            costs: dict[int, list[tuple[float, float]]] = {TURNS: [], 0: []}
            for _ in range(rounds):
                for turns, found in costs.items():
                    visitor = Visitor(context, space.url)
                    if turns:
                        visitor.open_long_conversation(turns)
                    visitor.choose("model", "Parrot")
                    visitor.ask("owl")
                    found.append((busy_seconds(visitor, typed), busy_seconds(visitor, streamed)))
                    visitor.close()
            for index, name in enumerate(("a key stroke", "a streamed update")):
                many, none = ([each[index] for each in costs[turns]] for turns in (TURNS, 0))
                report(f"{name} with {TURNS} turns, beside none", many, none)
    finally:
        line.close()
        space.close()


if __name__ == "__main__":
    main()
