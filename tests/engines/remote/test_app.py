"""A model on a server, as the page and the API of the app show it."""

import contextlib
import io
import json
import logging
import urllib.request

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from parley.config import EXTRA_REMOTE_SETTINGS
from parley.messages import Message
from parley.serving import turn
from parley.settings import OPTIONS
from parley.strategies import STRATEGIES
from parley.ui import controls
from tests.conftest import until
from tests.engines.remote.test_engine import ALL, FAULTY, answer, engine, environ
from tests.standins.faulty_server import KEY, WORDS


@pytest.fixture
def known(faulty, monkeypatch):
    """Sets the variables for the app in this process."""

    def know(models, **rest):
        for name, value in environ(faulty.url, models, **rest).items():
            monkeypatch.setenv(name, value)

    return know


def shown(model, strategy="sampling"):
    updates = dict(zip(OPTIONS, controls.for_model(model), strict=True))
    chosen = dict(zip(OPTIONS, controls.for_strategy(strategy, model), strict=True))
    return updates, {name for name, update in chosen.items() if update["visible"]}


def test_the_page_offers_what_the_server_honours_and_names_what_it_does_not(known):
    known("sound")
    updates, visible = shown("sound")
    always = {"model", "strategy", "system_prompt", "max_new_tokens", "stop"}
    assert visible == {*always, "temperature", "top_p", "seed"}
    assert updates["top_k"]["value"] == 0 and updates["temperature"]["value"] == 0.7
    told = updates["strategy"]["info"]
    assert told.startswith(STRATEGIES["sampling"].summary)
    assert "Not with this model: Top-k, Min-p, Typical-p," in told and "Thinking budget" in told
    marked = {name for label, name in updates["strategy"]["choices"] if "(not with this model)" in label}
    assert marked == set(STRATEGIES) - {"greedy", "sampling"}
    assert updates["model"]["info"] == "**Runs on another server, which reads what you type.**"
    known("sound", REMOTE_SETTINGS=ALL)
    assert shown("sound")[1] == visible | set(EXTRA_REMOTE_SETTINGS)
    assert shown("sound", "greedy")[1] == {
        *(*always, "repetition_penalty", "presence_penalty", "frequency_penalty", "thinking", "reasoning_effort"),
        *("dry_multiplier", "dry_base", "dry_allowed_length"),
    }


def test_the_api_answers_lists_and_refuses_and_waits_for_no_local_slot(known, inside, faulty):
    known("sound,endless")
    client = Client(inside.url, verbose=False)
    busy = client.submit("hello", model=inside.endless, max_new_tokens=4000, api_name="/chat")
    until(busy.outputs)
    assert client.predict("Hello", model="sound", messages=[], api_name="/chat") == "".join(WORDS)
    assert faulty.asked[-1][2]["top_p"] == OPTIONS["top_p"].default != 0.95  # as Budgie, the first model, has it
    busy.cancel()
    row = next(each for each in client.predict(api_name="/models") if each["name"] == "sound")
    assert row["plan"] == "Runs on another server, which reads what you type." and row["parameters"] is None
    listed = {each["name"]: each for each in client.predict(model="sound", api_name="/strategies")}
    assert not listed["greedy"]["unavailable"]
    assert set(listed["sampling"]["settings"]) == {"temperature", "top_p", "seed", "max_new_tokens", "stop"}
    for asked in ({"strategy": "beams"}, {"top_k": 50}, {"thinking": True}):
        with pytest.raises(AppError) as refusal:
            client.predict("Hello", model="sound", **asked, api_name="/chat")
        assert "sound" in str(refusal.value) and "hoose another" in str(refusal.value)
    assert str(refusal.value).startswith("The server of sound takes no Thinking. Set thinking to False, or choose")


@pytest.mark.slow
def test_more_than_forty_are_answered_at_once(known, inside, faulty):
    known("endless")
    asked, left = len(faulty.asked), len(faulty.left)
    body = json.dumps({"message": "Hello", "model": "endless", "max_new_tokens": 4000}).encode()
    call = urllib.request.Request(f"{inside.url}/gradio_api/call/v2/chat", body, {"Content-Type": "application/json"})
    for _ in range(45):
        urllib.request.urlopen(call).close()
    until(lambda: len(faulty.asked) == asked + 45)
    assert len(faulty.left) == left  # none had to end for another to begin
    for run_id in turn.running():
        turn.stop(run_id)
    until(lambda: not turn.running())


def test_a_cancelled_call_closes_the_connection(known, inside, faulty):
    known("endless")
    count = len(faulty.left)
    job = Client(inside.url, verbose=False).submit("hello", model="endless", max_new_tokens=4000, api_name="/chat")
    until(job.outputs)
    job.cancel()
    until(lambda: len(faulty.left) > count and not turn.running())


def test_neither_answers_nor_lists_nor_the_page_hold_the_key(known, inside, faulty, caplog):
    caplog.set_level(logging.DEBUG)
    known(",".join(("sound", *FAULTY)))
    client = Client(inside.url, verbose=False)
    seen = [str(client.predict(api_name="/models")), str(client.predict(model="sound", api_name="/strategies"))]
    for model in ("sound", "401", "400", "an error", "garbled"):
        try:
            seen.append(client.predict("Hello", model=model, messages=[], api_name="/chat"))
        except AppError as error:
            seen.append(str(error))
    assert all(seen) and KEY not in str(seen) + caplog.text


def test_the_program_under_an_answer_asks_for_the_same_once_more(faulty, monkeypatch):
    said = [Message("system", "Answer like a pirate."), Message("user", 'He said "hi".')]
    every = engine(faulty.url, "tagged thought", REMOTE_SETTINGS=ALL)
    made = answer(every, said, stop="!!", temperature=0.3, seed=9)
    _, headers, body = faulty.asked[-1]
    assert KEY not in str(made.run_record) and faulty.url not in str(made.run_record)
    for name, value in environ(faulty.url, "tagged thought").items():
        monkeypatch.setenv(name, value)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(made.run_record.program, {})
    _, again, same = faulty.asked[-1]
    assert same == {name: value for name, value in body.items() if name != "stream_options"} | {"stream": False}
    assert again["authorization"] == headers["authorization"]
    assert (printed.getvalue(), made.text) == ("Yes.\n", "Yes.")
