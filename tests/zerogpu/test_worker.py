"""A turn on ZeroGPU: the app, the shipped client of `spaces`, forked workers, and a stand-in for the server."""

import itertools
import re
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from tests.browser import QUIET, Visitor
from tests.conftest import ROOT, until
from tests.zerogpu.conftest import BIRD, SMALL, ZeroGpuSpace
from tests.zerogpu.faults import FAULTS, TOKEN

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

LONGEST = 12  # seconds of GPU time that an answer asks for
PLACE = "Waiting for a GPU: you are number {} in the line of this Space"
ANSWERED = re.compile(r"· [\d,]+ tokens? · ")  # however it ended: where others compute it may run out of time
WORDS = re.compile(r"\w{2,}")


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    running = ZeroGpuSpace(tmp_path_factory.mktemp("zerogpu"), MAX_GPU_SECONDS=str(LONGEST))
    watch = Watch(running.url)
    yield running
    watch.end()
    running.close()
    assert watch.answered and not watch.faults, "the server was frozen"


class Watch:
    """Asks the server something all the time, whatever the tests do."""

    def __init__(self, url):
        self.url, self.answered, self.faults, self.on = url, 0, [], True
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while self.on:
            try:
                urllib.request.urlopen(self.url + "/config", timeout=90).read()
                self.answered += 1
            except OSError as fault:
                self.faults.append(fault)
            time.sleep(0.05)

    def end(self):
        self.on = False
        self.thread.join()


@pytest.fixture(autouse=True)
def free_again(zero):
    """Whatever a test does, the GPU is free afterwards, and nobody waits."""
    yield
    until(lambda: not zero.api.busy and not zero.api.line)


@pytest.fixture
def story():
    return {"message": "Tell me a story about an owl.", "messages": [], "strategy": "greedy", "api_name": "/chat"}


@pytest.fixture
def endless(zero):
    return {"message": "hello", "model": zero.endless.name, "max_new_tokens": 4000, "api_name": "/chat"}


@pytest.fixture
def visit(chromium, zero):
    visitors = []

    def open_tab(**look):
        visitors.append(Visitor(chromium, zero.url, **look))
        return visitors[-1]

    yield open_tab
    for visitor in visitors:
        visitor.close()
    assert [fault for visitor in visitors for fault in visitor.faults] == []


@pytest.fixture(scope="module")
def tab(chromium, zero):
    """One tab for many short talks."""
    visitor = Visitor(chromium, zero.url)
    visitor.limit(8)
    yield visitor
    visitor.close()
    assert visitor.faults == []


@pytest.fixture
def reader(tab):
    """An empty page, used before."""
    if tab.questions.count():
        tab.press("New conversation")
        expect(tab.questions).to_have_count(0)
    tab.box.fill("")
    yield tab
    tab.context.set_extra_http_headers({})


def talk_without_end(visitor, text="hello"):
    visitor.choose("model", "endless")
    visitor.limit(4000)
    visitor.send(text)


def test_an_answer_streams_through_the_forked_worker_which_is_used_again(zero, story):
    client = zero.client()
    pieces = list(client.submit(**story))
    (worker,) = zero.api.pids
    assert len(pieces) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
    assert client.predict(**story)
    assert zero.api.pids == [worker]
    assert len(zero.api.asked("/allow")) == 1
    assert {asked["gpuSize"] for asked in zero.api.asked("/schedule")} == {"xlarge"}


def test_what_can_be_mended_is_refused_and_the_same_worker_answers_the_next_turn(zero, story, reader):
    client = zero.client()
    client.predict(**story)
    (worker,) = zero.api.pids
    asked = len(zero.api.asked("/schedule"))
    for bad, sentence in (({"temperature": 99}, "Temperature must be"), ({"model": "gpt-9"}, "no model called")):
        with pytest.raises(AppError, match=sentence):
            client.predict(**story | {"strategy": "sampling"} | bad)
    assert len(zero.api.asked("/schedule")) == asked, "what is known before is refused before"
    for bad, sentence in (
        ({"message": "word " * 3000}, r"needs \d+ tokens"),
        ({"strategy": "early_exit", "exit_layer": 99}, "it can exit after layer"),
    ):
        with pytest.raises(AppError, match=sentence):
            client.predict(**story | bad)
        assert client.predict(**story)
        assert zero.api.pids == [worker]
    reader.ask("word " * 3000)
    expect(reader.error).to_have_text(re.compile(r"needs \d+ tokens"))
    reader.press("Undo")
    expect(reader.box).to_have_value("word " * 3000)
    expect(reader.questions).to_have_count(0)
    reader.ask("hello")
    expect(reader.folded).to_have_text(ANSWERED)
    assert zero.api.pids == [worker]


def test_only_a_model_that_runs_on_the_gpu_spends_any_quota(zero):
    asked = len(zero.api.asked("/schedule"))
    client = zero.client()
    assert client.predict("Polly", model="parrot", api_name="/chat") == "Polly"
    assert client.predict("Polly", model="sound", api_name="/chat") == "Once upon a time"
    assert client.predict("A text of no mark at all.", model="budgie", api_name="/detect")["marked"] is False
    models = client.predict(api_name="/models")
    assert [m["name"] for m in models] == [BIRD, "endless", SMALL, "budgie", "parrot", "sound"]
    assert [m["name"] for m in models if "CPU" in m["plan"]] == [SMALL, "budgie"]
    for name in (SMALL, "budgie"):
        assert client.predict("Hello!", model=name, max_new_tokens=8, messages=[], api_name="/chat")
    assert len(zero.api.asked("/schedule")) == asked


def test_the_visitors_token_reaches_zerogpu_from_the_page_and_from_programs(zero, story, visit, chromium):
    zero.client(TOKEN).predict(**story)
    assert zero.api.asked("/schedule")[-1]["token"] == TOKEN
    chromium.set_extra_http_headers({"x-ip-token": TOKEN + "y"})
    try:
        visit().ask("hello")
    finally:
        chromium.set_extra_http_headers({})
    assert zero.api.asked("/schedule")[-1]["token"] == TOKEN + "y"


def test_a_short_answer_asks_for_little_and_the_details_say_how_much(zero, visit):
    visitor = visit()
    visitor.limit(8)
    visitor.ask("hello")
    visitor.quiet.click()
    asked = int(zero.api.asked("/schedule")[-1]["durationSeconds"])
    assert asked < LONGEST
    expect(visitor.folded.last).to_contain_text(f"Requested GPU time: {asked} s")


def test_stop_on_the_page_ends_the_worker_and_keeps_what_it_cost(zero, visit):
    visitor = visit()
    talk_without_end(visitor)
    expect(visitor.answer).to_have_text(WORDS)
    (worker,) = zero.api.pids
    visitor.stop_button.click()
    until(lambda: not zero.api.busy)
    expect(visitor.quiet).to_have_text(re.compile(r"· [\d,]+ tokens · .* · stopped"))
    visitor.until_free()
    assert zero.api.pids == [worker]


@pytest.mark.parametrize("how", ["cancelled", "closed tab", "killed"])
def test_a_visitor_who_leaves_gives_the_gpu_back(zero, endless, visit, how):
    if how == "cancelled":
        job = zero.client().submit(**endless)
        until(job.outputs)
        leave = job.cancel
    elif how == "closed tab":
        visitor = visit()
        talk_without_end(visitor)
        expect(visitor.answer).to_have_text(WORDS)
        leave = visitor.close
    else:
        program = f"""
from gradio_client import Client
for text in Client({zero.url!r}, verbose=False).submit(**{endless!r}): print(len(text), flush=True)
"""
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout.readline()
        leave = process.kill
    assert zero.api.busy
    (worker,) = zero.api.pids
    leave()
    until(lambda: not zero.api.busy)
    assert zero.api.pids == [worker]


def test_a_waiting_visitor_sees_their_place_and_can_leave_and_others_are_served(zero, visit, story):
    first, last, waiting = visit(), visit(), zero.api.line
    with zero.api.occupied():
        first.send("Hello, who are you?")
        expect(first.quiet).to_have_text(PLACE.format(1))
        program = zero.client().submit(**story)
        until(lambda: len(waiting) == 2)
        last.send("Hello, who are you?")
        expect(last.quiet).to_have_text(PLACE.format(3))
        assert zero.client().predict("me too", model="parrot", api_name="/chat") == "me too"
        first.stop_button.click()
        expect(first.quiet).to_have_text(re.compile("stopped"))
        first.until_free()
        until(lambda: len(waiting) == 2)
        expect(last.quiet).to_have_text(PLACE.format(2))
        first.send("and again")
        expect(first.quiet).to_have_text(PLACE.format(3))
        first.close()
        until(lambda: len(waiting) == 2)
        program.cancel()
        expect(last.quiet).to_have_text(PLACE.format(1))
        until(lambda: len(waiting) == 1)
    last.until_free()
    expect(last.quiet).to_have_text(QUIET)
    assert last.answer.inner_text().strip()


def test_two_visitors_of_one_gpu_both_get_their_answers(zero, story):
    jobs = [zero.client().submit(**story) for _ in range(2)]
    first, second = sorted((job.result(timeout=90) for job in jobs), key=len)
    assert second.startswith(first) and len(first) > 20  # on a slow machine one may run out of its time
    assert len(zero.api.pids) == 1


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_program_gets_one_sentence_that_says_what_went_wrong_and_its_next_call_an_answer(zero, story, fault):
    client, workers, story["max_new_tokens"] = zero.client(fault.token), zero.api.pids, 8
    with fault.happens_to(zero) as strike:
        job = client.submit(**story)
        strike()
        way_out = rf" Or name the model '{SMALL}', which needs no GPU\." if fault.no_gpu else ""
        with pytest.raises(AppError, match=f"^{fault.sentence}{way_out}$"):
            job.result(timeout=90)
    assert client.predict(**story)
    assert fault.costs or set(workers) <= set(zero.api.pids)
    assert fault.logged in zero.output()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_page_says_what_went_wrong_in_one_sentence_under_the_question_and_retry_answers_it(zero, reader, fault):
    workers = zero.api.pids
    reader.context.set_extra_http_headers({"x-ip-token": fault.token} if fault.token else {})
    with fault.happens_to(zero) as strike:
        reader.send("Tell me a story about an owl.")
        expect(reader.questions).to_have_text("Tell me a story about an owl.")
        reader.box.fill("and then?")
        strike()
        expect(reader.error).to_have_text(re.compile(rf"^\s*Could not finish\s+{fault.sentence}\s*$"))
    reader.until_free()
    expect(reader.questions).to_have_text("Tell me a story about an owl.")
    expect(reader.questions).to_be_in_viewport()
    expect(reader.error).to_be_in_viewport()
    expect(reader.page.locator(".toast-body:visible")).to_have_count(0)
    expect(reader.page.get_by_role("button", name="Go on with Qwen3 0.6B")).to_have_count(int(fault.no_gpu))
    reader.press("Retry")
    expect(reader.folded).to_have_text(ANSWERED)
    expect(reader.questions).to_have_text("Tell me a story about an owl.")
    expect(reader.box).to_have_value("and then?")
    assert fault.costs or set(workers) <= set(zero.api.pids)


@pytest.mark.parametrize("how", ["killed", "taken away"])
def test_a_worker_that_dies_leaves_what_was_said_and_one_sentence(zero, visit, how):
    visitor = visit()
    talk_without_end(visitor, "tell me everything")
    expect(visitor.answer).to_have_text(WORDS)
    visitor.box.fill("and then?")
    (worker,) = zero.api.pids
    zero.api.kill_workers() if how == "killed" else zero.api.take_away()
    expect(visitor.error).to_have_text(re.compile("GPU was taken away before the answer had ended.*Press Retry"))
    visitor.until_free()
    expect(visitor.questions).to_have_text(["tell me everything"])
    assert visitor.answer.inner_text().strip()
    expect(visitor.box).to_have_value("and then?")
    expect(visitor.page.get_by_role("button", name="Continue")).to_be_visible()
    visitor.choose("model", BIRD)
    visitor.press("Retry")
    expect(visitor.quiet).to_have_text(ANSWERED)
    expect(visitor.error).to_have_count(0)
    assert worker not in zero.api.pids


def test_an_answer_that_runs_out_of_its_gpu_time_ends_before_it_is_taken_away(zero, visit):
    visitor = visit()
    talk_without_end(visitor)
    expect(visitor.answer).to_have_text(WORDS)
    visitor.box.fill("and then?")
    (worker,) = zero.api.pids
    expect(visitor.quiet).to_have_text(re.compile(r"· [\d,]+ tokens · .* · ran out of time"))
    said = visitor.answer.inner_text()
    visitor.limit(8)
    visitor.page.get_by_role("button", name="Continue").click()
    expect(visitor.quiet).to_have_text(re.compile(r"· [\d,]+ tokens · .* · reached max new tokens"))
    visitor.quiet.click()
    expect(visitor.folded.last.locator("ul")).to_contain_text(re.compile(r"of them cached\s+Answer: 8 tokens"))
    assert visitor.answer.inner_text().startswith(said.strip())
    expect(visitor.questions).to_have_count(1)
    expect(visitor.box).to_have_value("and then?")
    assert zero.api.pids == [worker]
