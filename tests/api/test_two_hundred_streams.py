"""Two hundred visitors ask at the same time, and sixty of them hang up. Each of the others gets a whole answer."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
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


def visit(http, number, leaves):
    """What a visitor reads to the end; None for one who hangs up after the first text."""
    body = {"message": question(number), "model": "budgie", "messages": [], **values(number)}
    event = http.post("/gradio_api/call/v2/chat", json=body).json()["event_id"]
    with http.stream("GET", f"/gradio_api/call/chat/{event}") as stream:
        kind = last = None
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            kind = value if name == "event" else kind
            if name == "data" and kind in ("generating", "complete") and value != "null":
                last = json.loads(value)[0]
                if leaves:
                    return None  # which closes the connection
            assert kind != "error", value
        assert kind == "complete"
        return last


def test_everyone_who_stays_gets_their_own_answer(inside):
    engine = inside.engine("budgie")
    expected = [answer(engine, [Message("user", question(n))], **values(n)).text for n in range(VISITORS)]
    assert len(set(expected)) > VISITORS / 2
    process = psutil.Process()
    with httpx2.Client(base_url=inside.url, timeout=250, limits=httpx2.Limits()) as http:
        visit(http, 0, leaves=False)
        files, memory = process.num_fds(), process.memory_info().rss
        with ThreadPoolExecutor(VISITORS) as visitors:
            answers = list(visitors.map(lambda n: visit(http, n, leaves=n % 10 < 3), range(VISITORS)))
    for number, said in enumerate(answers):
        assert said is None if number % 10 < 3 else said == expected[number]
    until(lambda: not turn.running() and not inside.waiting())
    until(lambda: not any(each.name.startswith(OURS) for each in threading.enumerate()))
    until(lambda: process.num_fds() <= files + FILES_TO_SPARE)
    assert process.memory_info().rss < memory + MEGABYTES_TO_SPARE * 1e6
