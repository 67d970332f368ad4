"""A model on a server: what it says comes through, what it cannot be asked for is refused, and every fault of the
server ends in one sentence that holds no key. The server is one whose models are faults.
"""

import itertools
import logging
import ssl
import subprocess
import threading
import traceback
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from parley.config import EXTRA_REMOTE_SETTINGS, STANDARD_REMOTE_SETTINGS
from parley.engines.base import TurnRequest
from parley.engines.remote import engine as remote_engine
from parley.errors import BadSetting, ServerFault
from parley.events import Answer, Delta
from parley.messages import Message, build_messages
from parley.models import registry, remote_servers
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.conftest import free_port, until
from tests.standins.faulty_server import FAULTS, KEY, WORDS

ALL = ",".join((*STANDARD_REMOTE_SETTINGS, *EXTRA_REMOTE_SETTINGS))
HELLO = build_messages([], "Hello")


def environ(url, model="sound", **rest):
    return {"REMOTE_MODELS": model, "REMOTE_BASE_URL": url, "REMOTE_API_KEY": KEY, **rest}


def engine(url, model="sound", silence=30.0, seconds=60.0, **rest):
    known = environ(url, model, **rest)
    row = registry.find(model, known)
    return remote_engine.RemoteEngine(row, remote_servers.find(known), seconds, silence)


def deltas(engine, messages=HELLO, cancel=None, **values):
    settings = Settings.check({"top_k": 0, "max_new_tokens": 20} | values)
    return engine.stream(TurnRequest.of(messages, settings, cancel or threading.Event()))


def answer(engine, messages=HELLO, **values):
    return sum(deltas(engine, messages, **values), Answer())


def failed(engine):
    """What was said before the fault, the fault, and all that a traceback of it would tell."""
    made = Answer()
    with pytest.raises(ServerFault) as caught:
        for delta in deltas(engine):
            made += delta
    return made, str(caught.value), "".join(traceback.format_exception(caught.value))


def test_an_answer_streams_with_what_the_server_says_that_it_cost(faulty):
    pieces = [delta.text for delta in deltas(engine(faulty.url)) if delta.text]
    made = answer(engine(faulty.url))
    assert "".join(pieces) == made.text == "".join(WORDS)
    assert (made.finish, made.usage.prompt_tokens, made.usage.new_tokens) == ("end", 21, 4)
    assert 0 < made.usage.time_to_first_token <= made.usage.seconds
    assert replace(made.usage, seconds=made.usage.time_to_first_token + 0.001).tokens_per_second is None
    assert answer(engine(faulty.url, "cached")).usage.cached_tokens == 16


@pytest.mark.parametrize("model", ["no usage", "absurd usage"])
def test_where_the_server_sends_no_count_pieces_are_counted_and_called_so(faulty, model):
    made = answer(engine(faulty.url, model))
    assert (made.usage.unit, made.usage.new_tokens, made.usage.prompt_tokens) == ("chunk", len(WORDS), 0)


def test_a_character_that_is_sent_in_halves_can_be_shown_all_the_same(faulty):
    assert answer(engine(faulty.url, "half a character")).text.encode() == b"Once ??."


@pytest.mark.parametrize("model", ["reasoning_content", "reasoning", "tagged thought"])
def test_a_thought_comes_apart_from_the_answer_whichever_way_it_is_sent(faulty, model):
    made = answer(engine(faulty.url, model))
    assert (made.thought, made.text) == ("Hmm", "Yes.")


@pytest.mark.parametrize(
    ("model", "finish"),
    [("too long", "context"), ("stopped there", "stop string"), ("filtered", "end"), ("stays open", "end")],
)
def test_an_answer_says_why_it_ended(faulty, model, finish):
    made = answer(engine(faulty.url, model))
    assert made.finish == finish
    assert made.notices == (("the server says content_filter",) if model == "filtered" else ())


def test_max_new_tokens_and_the_end_of_the_context_are_two_reasons(faulty):
    assert answer(engine(faulty.url, "too long"), max_new_tokens=4).finish == "length"


def test_a_stop_string_ends_the_answer_also_where_the_server_does_not_know_it(faulty):
    made = answer(engine(faulty.url), stop="n a\nzzz")
    assert (made.text, made.finish) == ("Once upo", "stop string")
    assert faulty.asked[-1][2]["stop"] == ["n a", "zzz"]


def test_the_request_holds_what_was_set_and_nothing_else(faulty):
    sent = {"temperature": 0.5, "top_p": 0.8, "seed": 7}
    answer(engine(faulty.url), **sent)
    path, headers, body = faulty.asked[-1]
    assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "sound",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 20,
        "stream": True,
        "stream_options": {"include_usage": True},
        **sent,
    }


def test_an_answer_that_has_begun_is_asked_for_in_words_and_joined_with_a_space(faulty):
    begun = [*HELLO, Message("assistant", "<think>\nHmm\n</think>\n\nThere was")]
    assert answer(engine(faulty.url), begun).text == " Once upon a time"
    *_, said, asked = faulty.asked[-1][2]["messages"]
    assert said == {"role": "assistant", "content": "There was"}
    assert asked == {"role": "user", "content": remote_engine.GO_ON}
    assert answer(engine(faulty.url), [*HELLO, Message("assistant", "There: ")]).text == "Once upon a time"
    answer(engine(faulty.url), [*HELLO, Message("assistant", "<think>\nHmm")])
    assert [m["role"] for m in faulty.asked[-1][2]["messages"]] == ["user"]


def test_greedy_is_a_temperature_of_0(faulty):
    made = answer(engine(faulty.url), strategy="greedy")
    body = faulty.asked[-1][2]
    assert body["temperature"] == 0 and not {"top_p", "seed"} & set(body)
    assert made.seed is None


def test_a_fresh_seed_is_drawn_sent_and_reported(faulty):
    first, second = answer(engine(faulty.url)), answer(engine(faulty.url))
    assert first.seed != second.seed == faulty.asked[-1][2]["seed"]


def test_what_only_some_servers_know_is_sent_where_the_owner_says_so(faulty):
    every = engine(faulty.url, REMOTE_SETTINGS=ALL)
    answer(every, top_k=40, min_p=0.1, repetition_penalty=1.2, thinking=True, reasoning_effort="low")
    body = faulty.asked[-1][2]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (40, 0.1, 1.2)
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert body["reasoning_effort"] == "low"
    answer(every, top_k=0)
    assert "reasoning_effort" not in faulty.asked[-1][2]
    assert faulty.asked[-1][2]["top_k"] == -1  # all, in the words of those servers


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"top_k": 50}, "The server of sound takes no Top-k. Set top_k to 0, or choose another model."),
        ({"min_p": 0.1}, "takes no Min-p. Set min_p to 0.0"),
        ({"repetition_penalty": 1.1}, "takes no Repetition penalty. Set repetition_penalty to 1.0"),
        ({"thinking": True}, "takes no Thinking. Set thinking to False"),
        ({"reasoning_effort": "low"}, "takes no Reasoning effort. Set reasoning_effort to 'default'"),
        ({"thinking_budget": 5}, "takes no Thinking budget. Set thinking_budget to 0"),
        ({"guidance_scale": 2.0}, "takes no Guidance scale"),
    ],
)
def test_a_setting_that_the_server_does_not_honour_is_refused_before_it_is_asked(faulty, values, sentence):
    count = len(faulty.asked)
    with pytest.raises(BadSetting, match=sentence.replace(".", r"\.")):
        answer(engine(faulty.url), **values)
    assert len(faulty.asked) == count


def test_only_the_strategies_that_a_server_knows_are_offered():
    for named, possible in (("temperature", {"sampling", "greedy"}), ("seed", {"sampling"}), ("", {"sampling"})):
        row = registry.find("m", environ("http://x", "m", REMOTE_SETTINGS=named))
        refusals = {name: each.refusal(registry.strategy_traits(row)) for name, each in STRATEGIES.items()}
        assert {name for name, refusal in refusals.items() if not refusal} == possible
    assert refusals["beams"].startswith("m answers from a server that only does sampling, so Beam search does not")


FAULTY = {  # the sentence, and what is kept of the answer
    "401": "does not accept this app's key. The owner of this app has to change REMOTE_API_KEY.",
    "401 in plain words": "does not accept this app's key",
    "402": "The credit that pays for 402 is used up.",
    "403": "This app's key may not use 403.",
    "404": "The server has no 404. The owner of this app has to check REMOTE_MODELS and REMOTE_BASE_URL.",
    "408": "took too long. Press Retry",
    "418": "fails with error 418.",
    "500": "fails with error 500.",
    "502": "fails with error 502.",
    "503": "is starting or overloaded. Press Retry in a moment.",
    "504": "took too long.",
    "429": "gets too many requests now. Press Retry in a moment.",
    "429 for seconds": "Press Retry in 7 seconds.",
    "429 for an hour": "Press Retry in 60 minutes.",
    "429 until then": "Press Retry in 9",
    "429 for ever": "Press Retry in a moment.",
    "400": 'refuses this request: "The context of … has 512 tokens.". Change the settings',
    "422": "refuses this request: \"Unexpected fields in the request: {'seed'}\". Change",
    "html": "The server of html sends no chat completions. The owner of this app has to check REMOTE_BASE_URL.",
    "no stream": "sends no chat completions",
    "nothing": "sends no chat completions",
    "elsewhere": "sends no chat completions",
    "hangs up": "does not answer. Press Retry",
    "silent": "has sent nothing for 0.6 seconds. Press Retry",
    "garbled": ("sent something that cannot be read. Press Retry", "Once upon"),
    "a list": ("sent something that cannot be read", "Once upon"),
    "a number": ("sent something that cannot be read", "Once upon"),
    "no delta": ("sent something that cannot be read", "Once upon"),
    "choices of text": ("sent something that cannot be read", "Once upon"),
    "an error": ("reports an error of its own. Press Retry", "Once upon"),
    "an overload": ("is starting or overloaded", "Once upon"),
    "an end without a reason": ("broke off in the middle of the answer. Press Retry.", "Once upon"),
    "cut": ("broke off in the middle of the answer", "Once "),
    "stalled": ("has sent nothing for 0.6 seconds", "Once upon"),
    "flood": ("sent far more than it was asked for, and was cut off.", "water " * 100),
    "one endless line": ("sent far more than it was asked for", "Once "),
}


@pytest.mark.parametrize("model", FAULTY)
def test_every_fault_ends_in_one_sentence_with_what_was_said_and_without_the_key(faulty, model, caplog):
    caplog.set_level(logging.DEBUG)
    expected, kept = FAULTY[model] if isinstance(FAULTY[model], tuple) else (FAULTY[model], "")
    short = 0.6 if model in ("silent", "stalled") else 30
    made, sentence, told = failed(engine(faulty.url, model, silence=short))
    assert expected in sentence
    assert made.text.startswith(kept) and len(made.text) <= 64 * 20 and not made.finish
    assert KEY not in sentence + told + caplog.text
    assert any(record.name == remote_engine.__name__ and model in record.message for record in caplog.records)


def test_no_fault_is_left_out():
    sound = {"sound", "no usage", "absurd usage", "too long", "filtered", "cached"}
    sound |= {"half a character", "tagged thought", "reasoning", "reasoning_content"} | {
        "logprobs",
        "malformed logprobs",
    }
    assert set(FAULTS) - set(FAULTY) == {*sound, "stopped there", "stays open", "endless"}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://no-such-host.invalid:1/v1", "The address of the server of sound is not known."),
        ("http://127.0.0.1:{free}/v1", "does not answer"),
        ("https://127.0.0.1:{plain}/v1", "cannot prove who it is"),
        ("https://localhost:{selfsigned}/v1", "cannot prove who it is. The owner of this app has to check its cert"),
    ],
)
def test_a_server_that_cannot_be_reached_or_trusted_is_named_with_what_to_do(faulty, selfsigned, url, sentence):
    ports = {"free": free_port(), "plain": faulty.server.server_port, "selfsigned": selfsigned}
    assert sentence in failed(engine(url.format(**ports), silence=20))[1]


@pytest.fixture(scope="module")
def selfsigned(tmp_path_factory):
    """The port of a server whose certificate nobody vouches for."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    asked = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {0} -out {0}.crt"
    subprocess.run(asked.format(file).split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{file}.crt", file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None  # the reader hangs up
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_the_token_for_the_hub_is_not_sent_to_another_server(faulty, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 34)
    answer(engine(faulty.url, REMOTE_API_KEY=""))
    assert faulty.asked[-1][1]["authorization"] == "Bearer none"


def test_stop_closes_the_connection_and_keeps_the_text(faulty):
    cancel, made = threading.Event(), Answer()
    for delta in deltas(engine(faulty.url, "endless"), cancel=cancel, max_new_tokens=4000):
        made += delta
        if made.text.count("tick") >= 20:
            cancel.set()
    assert made.finish == "stopped" and 20 <= made.usage.new_tokens < 4000
    assert made.usage.tokens_per_second < 1000  # about the pace of the server (50), whenever we looked
    until(lambda: faulty.left[-1:] == ["endless"])


@pytest.mark.parametrize("model", ["silent", "stalled"])
def test_a_waiting_reader_gets_heartbeats_and_can_leave(faulty, model):
    """The server says nothing, or nothing more, for as long as somebody listens."""
    reading = deltas(engine(faulty.url, model, silence=600))
    *_, last = itertools.islice(reading, 5)
    assert last == Delta()
    count = len(faulty.left)
    reading.close()
    until(lambda: len(faulty.left) > count)


def test_an_answer_that_takes_too_long_is_ended_with_what_there_is(faulty):
    for seconds in (0.3, 3, 30):  # as long as this machine takes for the first words
        made = answer(engine(faulty.url, "endless", seconds=seconds), max_new_tokens=4000)
        assert made.finish == "time"
        if made.text:
            break
    assert "tick" in made.text


def test_many_are_read_at_once_by_one_thread(faulty):
    reading = [deltas(engine(faulty.url, "endless"), max_new_tokens=4000) for _ in range(20)]
    assert all(next(delta for delta in each if "tick" in delta.text) for each in reading)
    assert [thread.name for thread in threading.enumerate()].count("remote") == 1
    for each in reading:
        each.close()


def test_with_a_token_and_no_address_inference_providers_are_asked(faulty, monkeypatch):
    known = {"HF_TOKEN": "hf_" + "x" * 34, "REMOTE_MODELS": "org/m:groq"}
    providers = remote_engine.RemoteEngine(registry.find("org/m:groq", known), remote_servers.find(known))
    monkeypatch.setenv("HTTPS_PROXY", faulty.url.removesuffix("/v1"))  # that way nothing leaves this machine
    sentence, told = failed(providers)[1:]
    assert faulty.asked[-1][0] == "router.huggingface.co:443"
    assert "The server of org/m:groq does not answer." in sentence and "hf_x" not in told
    assert "hf_x" not in repr(remote_servers.find(known))
