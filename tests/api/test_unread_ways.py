"""Whichever way a turn came in, it ends where nobody reads its stream and where its reader goes, also in the line."""

import http.client
import json
import urllib.request
from contextlib import closing
from urllib.error import HTTPError

import pytest
from gradio_client import Client

from parley.api import unread_streams
from parley.serving import turn
from parley.serving.operations import ending
from parley.serving.waiting_line import LINE
from parley.settings import OPTIONS
from tests.api.test_unread_streams import LONG, post
from tests.conftest import Passes, until

MESSAGES = [{"role": "user", "content": "hello"}]
SHOWN = [{"role": "user", "content": [{"type": "text", "text": "hello"}], "metadata": None}]
OCCUPIED = LONG | {"strategy": "beams", "num_beams": 8}  # too slow to end before another turn waits for its place
# Beams, because to tell how a search came to its tokens it is run again, which takes long enough to be ended.
BEAMS = {"strategy": "beams", "num_beams": 8, "seed": 1, "max_new_tokens": 4000}


def function(inside, called):
    """The number of the function of this name, and how many values it takes."""
    names = {n: (fn.api_name, getattr(fn.fn, "__name__", "")) for n, fn in inside.demo.fns.items()}
    return next((n, len(inside.demo.fns[n].inputs)) for n, given in names.items() if called in given)


def join(inside, name, data):
    """The body by which the page calls a function; the session is its own."""
    number, values = function(inside, name)
    return {"fn_index": number, "data": [*data, *[None] * values][:values], "session_hash": f"unread-{name}"}


def chat_settings(inside):
    return [{"model": inside.endless, "max_new_tokens": 4000}.get(name) for name in OPTIONS]


WAYS = {
    "call": lambda i: ("/gradio_api/call/chat", {"data": ["hello", *chat_settings(i)]}),
    "call by name": lambda i: ("/gradio_api/call/v2/chat", {"message": "hello", "model": i.endless, **LONG}),
    "generate": lambda i: ("/gradio_api/call/v2/generate", {"messages": "hello", "model": i.endless, **LONG}),
    "queue": lambda i: ("/gradio_api/queue/join", join(i, "chat", ["hello", [], *chat_settings(i)])),
    "page": lambda i: ("/gradio_api/queue/join", join(i, "_answer", [{"turn": 1}, SHOWN, *chat_settings(i)])),
    "compare": lambda i: (
        "/gradio_api/call/v2/compare",
        {"message": "hello", "columns": [{"model": i.endless, "seed": n, **LONG} for n in (1, 2)]},
    ),
    "compare on the page": lambda i: (
        "/gradio_api/queue/join",
        join(i, "run", [{"number": 1, "message": "hello", "columns": [{"model": i.endless, **LONG}] * 2}]),
    ),
    "tokens": lambda i: (
        "/gradio_api/call/v2/tokens",
        {"messages": MESSAGES, "ids": [300] * 3000, "settings": BEAMS | {"model": i.endless}},
    ),
    "choices on the page": lambda i: (
        "/gradio_api/queue/join",
        join(
            i,
            "look",
            [{"messages": SHOWN, "stored": {"ids": [300] * 3000, "settings": BEAMS | {"model": i.endless}}}],
        ),
    ),
    "next": lambda i: (
        "/gradio_api/call/v2/next",
        {
            "messages": MESSAGES,
            "ids": [300] * 3000,
            "settings": {"model": i.endless, "strategy": "contrastive", "seed": 1},
        },
    ),
    "detect": lambda i: ("/gradio_api/call/v2/detect", {"text": "hello " * 300, "model": i.endless}),
}
RUNS_LONG = [way for way in WAYS if way not in ("next", "detect")]


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(unread_streams, "MAX_UNOPENED_SECONDS", 3.0)  # a busy client opens a stream late
    monkeypatch.setattr(unread_streams, "LOOK_SECONDS", 0.1)


@pytest.fixture(autouse=True)
def nothing_runs(inside):
    until(lambda: not turn.running() and not LINE.num_running() and not inside.waiting())


@pytest.mark.parametrize("way", RUNS_LONG)
def test_a_running_turn_that_nobody_reads_ends(inside, soon, way):
    event = post(inside.url, *WAYS[way](inside))
    until(LINE.num_running)
    until(lambda: event not in inside.demo._queue.event_ids_to_events)
    until(lambda: not LINE.num_running())


@pytest.mark.parametrize("way", WAYS)
def test_a_waiting_turn_that_nobody_reads_ends(inside, soon, one_place, way):
    reader = Client(inside.url, verbose=False).submit("hello", model=inside.endless, api_name="/chat", **OCCUPIED)
    until(reader.outputs)
    event = post(inside.url, *WAYS[way](inside))
    until(lambda: inside.waiting() == 1)
    until(lambda: event not in inside.demo._queue.event_ids_to_events)
    until(lambda: not inside.waiting())
    assert turn.running() and not reader.done()
    reader.cancel()


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("way", RUNS_LONG)
def test_a_turn_ends_when_its_reader_goes(inside, one_place, way, waits):
    """The limit for streams that were never opened is the real one, so it is not that which ends the turn."""
    if waits:
        first = Client(inside.url, verbose=False).submit("hello", model=inside.endless, api_name="/chat", **OCCUPIED)
        until(first.outputs)
    path, body = WAYS[way](inside)
    event = post(inside.url, path, body)
    stream = f"{path}/{event}" if "/call/" in path else f"/gradio_api/queue/data?session_hash={body['session_hash']}"
    with closing(urllib.request.urlopen(inside.url + stream, timeout=60)) as opened:
        opened.readline()
        until(inside.waiting if waits else LINE.num_running)
    until(lambda: not inside.waiting() if waits else not LINE.num_running())
    if waits:
        first.cancel()


def test_a_stream_that_waits_for_a_turn_which_never_begins_is_no_reader(inside, soon):
    """It has the mark of another turn, so it is refused after a while."""
    path, body = WAYS["page"](inside)
    event = post(inside.url, path, body)
    until(turn.running)
    stream = f"{inside.url}/gradio_api/queue/data?session_hash={body['session_hash']}&mark=another"
    with pytest.raises(HTTPError, match="404"):
        urllib.request.urlopen(stream, timeout=60)
    until(lambda: event not in inside.demo._queue.event_ids_to_events)
    until(lambda: not turn.running())


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("waits", [False, True])
def test_a_turn_by_the_openai_api_ends_when_its_client_goes(inside, one_place, waits, streams):
    if waits:
        first = Client(inside.url, verbose=False).submit("hello", model=inside.endless, api_name="/chat", **OCCUPIED)
        until(first.outputs)
    body = {"model": inside.endless, "messages": MESSAGES, "max_tokens": 4000, "stream": streams}
    connection = http.client.HTTPConnection(inside.url.partition("//")[2], timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    until(inside.waiting if waits else turn.running)
    connection.close()
    until(lambda: not inside.waiting() if waits else not LINE.num_running())
    if waits:
        first.cancel()


@pytest.mark.parametrize("path", ["/gradio_api/run/chat", "/gradio_api/api/chat", "/gradio_api/run/tokens"])
def test_there_is_no_way_past_the_queue(inside, path):
    asked = urllib.request.Request(
        inside.url + path, json.dumps({"data": ["hello"]}).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=60)
    assert 400 <= refused.value.code < 500
    assert not LINE.num_running()


@pytest.mark.parametrize("way", ["call", "call by name", "queue", "page", "compare", "tokens"])
def test_a_call_that_comes_while_the_app_ends_is_told_so_at_once(inside, monkeypatch, way):
    monkeypatch.setattr(ending.ENDING, "is_set", lambda: True)
    with pytest.raises(HTTPError) as refused:
        post(inside.url, *WAYS[way](inside))
    assert refused.value.code == 503 and json.load(refused.value)["detail"] == ending.SENTENCE


@pytest.mark.slow  # as long as a stream may stay unopened
def test_a_hundred_and_one_turns_that_nobody_reads_delay_another_visitor_by_one_pass(inside, one_place, monkeypatch):
    """Counted from the moment when those turns are over: the passes of the visitor's own prompt and first words."""
    monkeypatch.setattr(unread_streams, "MAX_UNOPENED_SECONDS", 30.0)  # on a busy machine it takes long to ask them
    queue = inside.demo._queue
    path, body = WAYS["call by name"](inside)
    with Passes(inside.engine("endless").loaded.model) as passes:
        client = Client(inside.url, verbose=False)
        unread = {post(inside.url, path, body) for _ in range(101)}
        job = client.submit("hello", model=inside.endless, api_name="/chat", **LONG)
        until(lambda: (job.status().rank or 0) > 50)  # some of those before may have ended already
        until(lambda: not unread & set(queue.event_ids_to_events))
        over = passes.count
        until(lambda: any(job.outputs()))
        begun = passes.count - over
        job.cancel()
    until(lambda: not turn.running())
    assert begun < 200  # far from the thousands of one of those turns; a client looks 20 times a second
