"""A turn whose stream nobody opens ends by itself, whichever way it came in."""

import json
import threading
import urllib.request

import pytest
from gradio_client import Client

from parley.api import unread_streams
from parley.serving import turn
from tests.conftest import Passes, until

LONG = {"max_new_tokens": 4000}


def post(url, path, body):
    asked = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)["event_id"]


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(unread_streams, "MAX_UNOPENED_SECONDS", 3.0)  # a busy client opens a stream late


def test_posts_that_nobody_reads_end_and_another_visitor_is_served(inside, soon):
    with Passes(inside.engine("endless").loaded.model) as passes:
        for _ in range(5):
            post(inside.url, "/gradio_api/call/v2/chat", {"message": "hello", "model": inside.endless, **LONG})
        until(lambda: passes.count > 3)
        assert Client(inside.url, verbose=False).predict("next", model="budgie", api_name="/chat")
        until(lambda: not turn.running() and not inside.waiting())
        until(lambda: not any(each.name == "read-answer" for each in threading.enumerate()))  # for their next turns
        ended = passes.count
        assert (
            Client(inside.url, verbose=False).predict("still here", model="parrot", api_name="/chat") == "still here"
        )
        assert passes.count <= ended + 1


def test_a_stream_that_is_opened_in_time_is_read_to_its_end(inside, soon):
    event = post(inside.url, "/gradio_api/call/v2/chat", {"message": "abc " * 80, "model": "parrot"})
    with urllib.request.urlopen(f"{inside.url}/gradio_api/call/v2/chat/{event}", timeout=60) as stream:
        assert ("abc " * 80).strip() in stream.read().decode()


@pytest.mark.slow
def test_a_client_that_reads_by_session_keeps_its_turn(inside, soon):
    job = Client(inside.url, verbose=False).submit("abc " * 120, model="parrot", api_name="/chat")
    assert job.result(timeout=60) == "abc " * 120


def test_nothing_is_kept_of_a_program_that_named_no_session(inside, soon, monkeypatch):
    monkeypatch.setattr(unread_streams, "FORGET_SECONDS", 0.05)
    sessions = inside.demo.state_holder.session_data
    kept = set(sessions)
    body = {"message": "abc", "model": "parrot"}
    read, left, unread = (
        post(inside.url, "/gradio_api/call/v2/chat", body | more)
        for more in ({}, {"message": "hello", "model": inside.endless, **LONG}, {})
    )
    with urllib.request.urlopen(f"{inside.url}/gradio_api/call/chat/{read}", timeout=60) as stream:
        assert "abc" in stream.read().decode()
    with urllib.request.urlopen(f"{inside.url}/gradio_api/call/chat/{left}", timeout=60) as stream:
        stream.readline()
    until(lambda: not {read, left, unread} & set(sessions) and not turn.running())
    until(lambda: set(sessions) <= kept)
    until(lambda: not {read, left} & set(inside.demo._queue.pending_messages_per_session))
    with urllib.request.urlopen(f"{inside.url}/gradio_api/call/chat/{unread}", timeout=60) as stream:  # it may be late
        assert "abc" in stream.read().decode()


def test_a_session_that_a_program_named_is_kept(inside):
    client = Client(inside.url, verbose=False)
    client.predict("abc", model="parrot", api_name="/chat")
    assert client.session_hash in inside.demo.state_holder.session_data
