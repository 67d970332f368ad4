"""Two hundred visitors at once over HTTP, of whom a third hang up: everyone who stays gets their own whole answer."""

import json
import socket
import threading
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from parley.messages import Message
from parley.serving import turn
from tests.conftest import until
from tests.engines.openvino.asking import answer

pytestmark = pytest.mark.slow
VISITORS = 200
FILES_TO_SPARE, MEGABYTES_TO_SPARE = 16, 150
OURS = ("turn", "generate", "read-answer", "load")  # the names of threads; those of the web server wait for more work


def question(number):
    return f"Repeat after me: number {number} and {7919 * number % 1000}."


def values(number):
    strategy = ("greedy", "sampling", "beams", "prompt_lookup")[number % 4]
    return {"strategy": strategy, "seed": number, "max_new_tokens": 24}


def visit(url, number, leaves):
    """What a visitor reads to the end; None for one who hangs up after the first text."""
    body = {"message": question(number), "model": "budgie", "messages": [], **values(number)}
    headers = {"Content-Type": "application/json"}
    post = urllib.request.Request(f"{url}/gradio_api/call/v2/chat", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(post, timeout=250) as made:
        event = json.load(made)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/chat/{event}", timeout=250) as stream:
        kind = last = None
        for line in stream:
            name, _, value = line.decode().strip().partition(": ")
            kind = value if name == "event" else kind
            if name == "data" and kind in ("generating", "complete") and value != "null":
                last = json.loads(value)[0]
                if leaves:
                    stream.fp.raw._sock.shutdown(socket.SHUT_RDWR)
                    return None
            assert kind != "error", value
        assert kind == "complete"
        return last


def test_everyone_who_stays_gets_their_own_answer(inside):
    engine = inside.engine("budgie")
    expected = [answer(engine, [Message("user", question(n))], **values(n)).text for n in range(VISITORS)]
    assert len(set(expected)) > VISITORS / 2
    visit(inside.url, 0, leaves=False)
    process = psutil.Process()
    files, memory = process.num_fds(), process.memory_info().rss
    with ThreadPoolExecutor(VISITORS) as visitors:
        answers = list(visitors.map(lambda n: visit(inside.url, n, leaves=n % 10 < 3), range(VISITORS)))
    for number, said in enumerate(answers):
        assert said is None if number % 10 < 3 else said == expected[number]
    until(lambda: not turn.running() and not inside.waiting())
    until(lambda: not any(each.name.startswith(OURS) for each in threading.enumerate()))
    until(lambda: process.num_fds() <= files + FILES_TO_SPARE)
    assert process.memory_info().rss < memory + MEGABYTES_TO_SPARE * 1e6
