"""No visitor reads a word of another one, whichever way they ask, while many ask; nor are caches shared."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from gradio_client import Client

from parley.settings import OPTIONS
from tests.api.test_unread_ways import function

pytestmark = pytest.mark.slow
EACH = 8  # visitors of each way, all of them at once
NONCE = re.compile(r"nonce\d+n")


def events(http, path, body):
    """All that comes of a call of Gradio's API."""
    event = http.post(path, json=body).raise_for_status().json()["event_id"]
    return http.get(f"{path.replace('/v2', '')}/{event}").text


def join(http, number, inside, word, model, **settings):
    """As the page asks."""
    index, count = function(inside, "_answer")
    shown = [{"role": "user", "content": [{"type": "text", "text": word}], "metadata": None}]
    given = {"model": model, "max_new_tokens": 24} | settings
    data = [{"turn": 1}, shown, *(given.get(name) for name in OPTIONS)]
    session = f"{number:032x}"
    body = {"fn_index": index, "data": [*data, *[None] * count][:count], "session_hash": session}
    http.post("/gradio_api/queue/join", json=body).raise_for_status()
    return http.get("/gradio_api/queue/data", params={"session_hash": session}).text


def asked(word, model, **rest):
    return {"model": model, "messages": [{"role": "user", "content": word}], **rest}


def streamed(http, body):
    """A stream, and its text in one piece."""
    text = http.post("/v1/chat/completions", json=body).raise_for_status().text
    return text + "".join(re.findall(r'"content": "([^"]*)"', text))


def columns(model):
    return [{"model": model, "seed": seed, "max_new_tokens": 24} for seed in (1, 2)]


WAYS = {
    "chat": lambda http, n, i, w, m: events(
        http, "/gradio_api/call/v2/chat", {"message": w, "model": m, "max_new_tokens": 24}
    ),
    "generate": lambda http, n, i, w, m: events(
        http, "/gradio_api/call/v2/generate", {"messages": w, "model": m, "max_new_tokens": 24}
    ),
    "compare": lambda http, n, i, w, m: events(
        http, "/gradio_api/call/v2/compare", {"message": w, "columns": columns(m)}
    ),
    "page": join,
    "OpenAI": lambda http, n, i, w, m: http.post("/v1/chat/completions", json=asked(w, m, max_tokens=24)).text,
    "OpenAI, streamed": lambda http, n, i, w, m: streamed(http, asked(w, m, max_tokens=24, stream=True)),
    "completions": lambda http, n, i, w, m: (
        http.post("/v1/completions", json={"model": m, "prompt": w, "max_tokens": 24, "echo": True}).text
    ),
}


def test_each_visitor_reads_their_own_words_and_nobody_elses(inside, monkeypatch):
    """The parrot says them again; Budgie, whose turns share passes and blocks, may."""
    monkeypatch.setenv("TURNS_PER_VISITOR", "64")  # programs without a key share an address
    monkeypatch.setenv("WAITING_PER_VISITOR", "64")
    models = ("parrot", "budgie")
    tasks = [(way, model) for way in WAYS for model in models for _ in range(EACH)]

    def ask(number):
        way, model = tasks[number]
        word = f"Repeat after me: nonce{number}n."
        with httpx2.Client(base_url=inside.url, timeout=250) as http:
            return WAYS[way](http, number, inside, word, model)

    with ThreadPoolExecutor(len(tasks)) as visitors:
        read = list(visitors.map(ask, range(len(tasks))))
    for number, text in enumerate(read):
        assert {*NONCE.findall(text)} <= {f"nonce{number}n"}, tasks[number]
        if tasks[number][1] == "parrot" and tasks[number][0] != "completions":
            assert f"nonce{number}n" in text, (tasks[number], text[:300])


def test_the_prefix_of_another_session_saves_no_token(inside):
    """Who asks the same as somebody else reads every token; who asks again does not."""
    question = "Tell me a long story about an owl and a lamp by the river in the north. " * 4

    def cached(client):
        told = client.predict(question, model="budgie", max_new_tokens=2, api_name="/generate")
        return told["usage"]["cached_tokens"]

    first, other = (Client(inside.url, verbose=False) for _ in range(2))
    tokens = [cached(client) for client in (first, first, other, other)]
    assert tokens[0] == tokens[2] == 0 < min(tokens[1], tokens[3])
