"""/healthz and /metrics, as a supervisor and Prometheus see them, and the log."""

import json
import logging
import re

import pytest
from gradio_client import Client

from parley.serving.operations import health
from tests.conftest import Space, until

SECRET = "xyzzy-nonce"


def value(http, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_an_app_that_is_well_says_so_and_one_that_is_not_says_what_to_do(http, monkeypatch):
    answer = http.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert http.head("/healthz").status_code == 200

    def broken():
        raise RuntimeError

    monkeypatch.setattr(health, "HEALTH", health.Health(broken))
    answer = http.get("/healthz")
    assert (answer.status_code, answer.json()["detail"]) == (503, health.ILL)


def test_turns_tokens_and_refusals_are_counted_and_no_word_is_in_it(http, inside, caplog):
    caplog.set_level(logging.INFO, "parley")
    ended = 'parley_turns_total{ending="length",model="budgie"}'
    made = 'parley_tokens_total{kind="made",model="budgie"}'
    before = {name: value(http, name) for name in (ended, made, "parley_first_token_seconds_count")}
    client = Client(inside.url, verbose=False)
    client.predict(SECRET, model="budgie", strategy="greedy", max_new_tokens=7, api_name="/chat")
    until(lambda: value(http, ended) == before[ended] + 1)
    assert value(http, made) == before[made] + 7
    assert value(http, "parley_first_token_seconds_count") == before["parley_first_token_seconds_count"] + 1
    columns = [{"model": "budgie", "seed": seed, "max_new_tokens": 5} for seed in (1, 2)]
    client.predict(SECRET, columns, api_name="/compare")
    until(lambda: value(http, made) == before[made] + 17)
    said = http.get("/metrics").text
    assert "parley_waiting 0" in said and re.search(r'parley_model_bytes\{model="budgie"\} \d+', said)
    turns = [json.loads(each.message) for each in caplog.records if each.name == "parley.turns"]
    assert [each["turns"] for each in turns if each["model"] == "budgie"][-2:] == [1, 2]
    assert SECRET not in said + caplog.text and client.session_hash not in said + caplog.text


def test_a_refusal_is_counted_by_its_code(http, inside, one_place, monkeypatch):
    monkeypatch.setenv("TURNS_PER_ADDRESS", "1")
    name = 'parley_refusals_total{code="too_many"}'
    before = value(http, name)
    job = Client(inside.url, verbose=False).submit(
        "hello", model=inside.endless, max_new_tokens=4000, api_name="/chat"
    )
    until(job.outputs)
    other = Client(inside.url, verbose=False).submit("hello", model="parrot", api_name="/chat")
    assert "1 answers of your network" in str(other.exception(timeout=60))
    job.cancel()
    assert value(http, name) == before + 1


def test_the_owner_may_serve_no_metrics(http, monkeypatch):
    monkeypatch.setenv("METRICS", "0")
    assert http.get("/metrics").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("level", ["info", "warning"])
def test_the_log_has_a_line_for_each_turn_and_no_progress_bar(level):
    space = Space(MODEL_IDS="budgie,parrot", LOG_LEVEL=level)
    try:
        client = Client(space.url, verbose=False)
        client.predict(SECRET, model="budgie", strategy="greedy", max_new_tokens=5, api_name="/chat")
        until(lambda: level == "warning" or '"ending": "length"' in space.output())
        assert SECRET not in space.output() and "%|" not in space.output()
        assert ('"ending": "length"' in space.output()) == (level == "info")
    finally:
        space.close()
