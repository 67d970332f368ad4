"""The API as a program sees it: a real gradio_client against the app, which runs in this process to be looked into."""

import asyncio
import functools
import itertools
import signal
import subprocess
import sys
import threading
import urllib.request

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from parley.serving import turn
from parley.settings import OPTIONS
from parley.ui import controls
from tests.conftest import ROOT, Passes, until
from tools import readme_tables


@pytest.fixture(scope="module")
def one_client(inside):
    """For calls that need no conversation of their own."""
    return Client(inside.url, verbose=False)


def test_a_message_is_answered(client):
    assert client.predict("Polly wants a cracker", model="parrot", api_name="/chat") == "Polly wants a cracker"


def test_the_default_model_answers_without_any_setting(client):
    assert client.predict("hello", api_name="/chat").strip()


def test_what_was_read_of_a_conversation_is_remembered_for_that_client_alone(client, inside):
    client.predict("hello", max_new_tokens=5, model="budgie", api_name="/chat")
    remembered = inside.engine("budgie").prefix_cache
    assert remembered.sequence(client.session_hash)
    assert not remembered.sequence(Client(inside.url, verbose=False).session_hash)


def test_the_answer_streams_and_only_grows(client):
    pieces = list(client.submit("abc " * 60, model="parrot", api_name="/chat"))
    assert len(pieces) > 5
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
    assert pieces[-1] == "abc " * 60


def test_every_setting_can_be_given_by_its_name_and_none_other(client):
    info = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    names = [p["parameter_name"] for p in info["/chat"]["parameters"]]
    assert names == ["message", *OPTIONS, "messages"]
    assert all(p["parameter_has_default"] for p in info["/chat"]["parameters"][1:])
    assert {p["parameter_default"] for p in info["/chat"]["parameters"][1:]} == {None}  # the model's own
    given = {name: o.default for name, o in OPTIONS.items()}
    given |= {"model": "budgie", "temperature": 1.5, "seed": 5, "system_prompt": "Answer like a pirate."}
    first, second = (client.predict("hello", **given, messages=[], api_name="/chat") for _ in range(2))
    assert first == second


def test_view_api_shows_what_programs_need_and_nothing_else(client):
    info = client.view_api(print_info=False, return_format="dict")
    assert set(info["named_endpoints"]) == {
        *("/chat", "/generate", "/compare", "/models", "/strategies", "/tokens", "/next", "/detect"),
    }
    assert not info["unnamed_endpoints"]


def test_the_documents_show_what_view_api_prints(inside):
    text = (readme_tables.DOCS / "api.md").read_text("utf-8")
    part = readme_tables.printed_api(inside.url)
    assert readme_tables.between(text, "view_api", part) == text, "run python -m tools.readme_tables"


def test_models_and_strategies_are_listed(client, inside):
    models = client.predict(api_name="/models")
    assert [m["name"] for m in models] == inside.models
    assert models[0]["thinking"] is True and models[0]["context"] == 1024
    assert [m["plan"] for m in models][1] == "" and models[1]["memory"] is None
    assert [m["in_company"] for m in models] == ["equal bits", None, "equal bits", "the same tokens"]
    strategies = {s["name"]: s for s in client.predict(api_name="/strategies")}
    assert "temperature" in strategies["sampling"]["settings"]
    assert "temperature" not in strategies["greedy"]["settings"]


def test_the_plan_that_is_listed_and_shown_is_the_one_that_was_loaded(client, inside, monkeypatch):
    loaded = inside.engine("budgie").loaded
    listed = client.predict(api_name="/models")[0]
    assert listed["plan"].startswith(loaded.plan.sentence + "; ") and listed["plan"].endswith(" GB free.")
    assert listed["memory"]["weights"] == loaded.plan.weights
    assert listed["memory"]["fits"] and listed["memory"]["free"] > listed["memory"]["needed"] > loaded.plan.weights
    assert loaded.plan.sentence in controls.for_model("budgie")[0]["info"]
    monkeypatch.setenv("QUANTIZATION", "int3")
    sentence = "QUANTIZATION is 'int3'. Set it to one of auto, none, int8, int4."
    assert controls.for_model("budgie")[0]["info"].endswith(f"Apache-2.0\n**{sentence}**")
    assert client.predict(api_name="/models")[0]["plan"] == sentence


async def refused_after_a_while(message, history, *_):
    yield ""  # as while it waits
    if message == "first":
        raise gr.Error("No.", print_exception=False)
    yield "Yes."


def test_a_question_that_was_refused_is_no_part_of_the_conversation(inside, monkeypatch):
    monkeypatch.setattr(inside.chat, "fn", refused_after_a_while)
    kept = []

    async def ask(message):
        async for _, conversation in inside.chat._stream_fn(message, list(kept)):
            kept[:] = conversation

    with pytest.raises(gr.Error):
        asyncio.run(ask("first"))
    assert kept == []
    asyncio.run(ask("second"))
    assert [each["role"] for each in kept] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"temperature": 99}, r"Temperature must be a number from 0\.0 to 2\.0; 99 is not\."),
        ({"top_k": 1.5}, "Top-k must be a whole number"),
        ({"max_new_tokens": True}, "Max new tokens must be a whole number"),
        ({"seed": -1}, "Seed must be"),
        ({"model": "gpt-9"}, "no model called 'gpt-9' here. The models are: budgie, parrot"),
        ({"strategy": "magic"}, "no strategy called 'magic'"),
        ({"stop": "x" * 60}, "at most 8 stop strings"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role of a message"),
        ({"messages": "hello"}, "list of messages"),
        ({"message": " ", "messages": []}, "Type a message"),
        ({"message": "word " * 3000}, r"needs \d+ tokens"),
        ({"model": "parrot", "message": "x" * 40_000}, "at most 32000 characters"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_with_one_clear_sentence_and_the_next_call_works(one_client, bad, sentence):
    with pytest.raises(AppError, match=sentence):
        one_client.predict(**({"message": "hi", "api_name": "/chat"} | bad))
    assert one_client.predict("still here", model="parrot", api_name="/chat") == "still here"


def test_stop_strings_may_be_a_list_and_nothing_else_is_made_text(one_client):
    """Public case 8."""
    ask = functools.partial(
        one_client.predict, "Hello, who are you?", strategy="greedy", messages=[], api_name="/chat"
    )
    assert ask(stop=["tiny"]) + "tiny" in ask()
    for wrong in ({"system_prompt": ["a"]}, {"message": 5}, {"model": ["budgie"]}, {"negative_prompt": {"a": 1}}):
        with pytest.raises(AppError, match="must be text"):
            ask(**wrong) if "message" not in wrong else one_client.predict(**wrong, api_name="/chat")


def test_parts_of_a_message_that_are_no_text_are_refused(one_client):
    """Public case 9."""
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(AppError, match="Only text can be read"):
        one_client.predict("And now?", messages=[{"role": "user", "content": parts}], api_name="/chat")
    parts.pop()
    repeated = one_client.predict("", messages=[{"role": "user", "content": parts}], model="parrot", api_name="/chat")
    assert repeated == "What is this?"


def test_a_conversation_is_kept_per_client(inside):
    one, other = Client(inside.url, verbose=False), Client(inside.url, verbose=False)
    one.predict("my name is Odette", strategy="greedy", api_name="/chat")
    assert "Odette" in one.predict("what is my name?", strategy="greedy", api_name="/chat")
    assert "Odette" not in other.predict("what is my name?", strategy="greedy", api_name="/chat")


def test_the_whole_conversation_can_be_passed_without_state(client):
    whole = [{"role": "user", "content": "my name is Odette"}, {"role": "assistant", "content": "Hello, Odette!"}]
    asked = {"strategy": "greedy", "messages": whole, "api_name": "/chat"}
    assert "Odette" in client.predict("what is my name?", **asked)
    whole_with_question = [*whole, {"role": "user", "content": "what is my name?"}]
    assert "Odette" in client.predict("", strategy="greedy", messages=whole_with_question, api_name="/chat")


def test_cancel_ends_the_model_within_one_forward_pass_and_the_next_call_is_served(inside, client):
    with Passes(inside.engine("endless").loaded.model) as passes:
        job = client.submit("hello", model=inside.endless, max_new_tokens=4000, api_name="/chat")
        until(lambda: passes.count > 10)
        job.cancel()
        until(lambda: not turn.running())
        ended = passes.count
        assert client.predict("next", model="parrot", api_name="/chat") == "next"
        assert passes.count <= ended + 1 < 900  # the pass that it was in when it was cancelled


def test_a_call_that_is_cancelled_before_the_server_has_it_ends_too(inside, client):
    cancelled, send = threading.Event(), client.send_data

    def send_later(*given):
        cancelled.wait(90)
        return send(*given)

    client.send_data = send_later
    with Passes(inside.engine("endless").loaded.model) as passes:
        job = client.submit("hello", model=inside.endless, max_new_tokens=4000, api_name="/chat")
        job.cancel()
        cancelled.set()
        until(lambda: job.communicator.event_id)
        until(lambda: not client.stream_open)
        until(lambda: not turn.running())
        assert passes.count < 900


def test_a_killed_client_ends_the_model(inside):
    program = f"""
from gradio_client import Client
client = Client({inside.url!r}, verbose=False)
job = client.submit("hello", model={inside.endless!r}, max_new_tokens=4000, api_name="/chat")
for text in job: print(len(text), flush=True)
"""
    with Passes(inside.engine("endless").loaded.model) as passes:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not turn.running())
        assert passes.count < 900


def test_others_are_served_while_one_turn_runs_and_while_it_is_stopped(inside, client):
    job = client.submit("hello", model=inside.endless, max_new_tokens=4000, api_name="/chat")
    until(job.outputs)
    assert Client(inside.url, verbose=False).predict("me too", model="parrot", api_name="/chat") == "me too"
    for _ in range(3):
        urllib.request.urlopen(inside.url + "/config", timeout=90).read()
        assert turn.running()
    job.cancel()
    while turn.running():
        urllib.request.urlopen(inside.url + "/config", timeout=90).read()


def test_a_second_visitor_is_served_beside_the_first(inside, client):
    first = client.submit("hello", model=inside.endless, max_new_tokens=4000, api_name="/chat")
    until(first.outputs)
    second = Client(inside.url, verbose=False)
    assert second.predict("hello", model=inside.endless, max_new_tokens=8, api_name="/chat").strip()
    before = len(first.outputs())
    until(lambda: len(first.outputs()) > before)
    load = {each["name"]: each for each in second.predict(api_name="/models")}[inside.endless]
    assert (load["running"], load["waiting"]) == (1, 0) and load["tokens_per_second"] > 1
    first.cancel()
    until(lambda: not turn.running())


def test_where_all_places_are_taken_a_visitor_waits_and_is_then_served(inside, client, one_place):
    first = client.submit("hello", model=inside.endless, max_new_tokens=4000, api_name="/chat")
    until(first.outputs)
    second = Client(inside.url, verbose=False).submit(
        "hello", model=inside.endless, max_new_tokens=4, api_name="/chat"
    )
    until(lambda: inside.waiting() == 1)
    first.cancel()
    assert second.result(timeout=90).strip()


def test_an_exception_in_the_model_reaches_the_caller_and_the_next_call_works(inside, client):
    model = inside.engine("budgie").loaded.model

    def explode(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    hook = model.register_forward_hook(explode)
    try:
        with pytest.raises(AppError, match="Something went wrong inside Parley") as caught:
            client.predict("hello", api_name="/chat")
    finally:
        hook.remove()
    assert "CUDA" not in str(caught.value)
    assert client.predict("hello", api_name="/chat").strip()


@pytest.mark.parametrize("way", ["chat", "compare"])
def test_the_status_of_a_job_has_its_place_in_the_line_and_the_expected_seconds(inside, client, one_place, way):
    first = client.submit("hello", model=inside.endless, max_new_tokens=4000, api_name="/chat")
    until(first.outputs)
    ask = {"model": inside.endless} if way == "chat" else {"columns": [{"model": inside.endless, "seed": 1}] * 2}
    clients = [Client(inside.url, verbose=False) for _ in range(2)]
    jobs = []
    for rank, each in enumerate(clients):
        jobs.append(each.submit("hello", **ask, api_name=f"/{way}"))
        until(lambda rank=rank: jobs[rank].status().rank == rank)
        assert jobs[rank].status().code.name in ("IN_QUEUE", "ITERATING")
    until(lambda: (said := jobs[1].status()).rank == 1 and said.eta >= 1 and said.queue_size == 2)
    jobs[0].cancel()
    until(lambda: jobs[1].status().rank == 0)
    for job in (jobs[1], first):
        job.cancel()
    until(lambda: not turn.running() and not inside.waiting())


def test_what_is_too_much_for_one_program_is_refused_with_a_code_and_others_are_served(inside, client):
    asked = {"model": inside.endless, "max_new_tokens": 4000, "api_name": "/chat"}
    jobs = [client.submit("hello", **asked) for _ in range(6)]
    until(lambda: len(turn.running()) == 2 and inside.waiting() == 4)
    with pytest.raises(AppError, match=r"^4 of your answers wait already\. Press Retry in \d+ s\.$") as refused:
        client.predict("hello", **asked)
    assert refused.value.title == "too_many"
    assert Client(inside.url, verbose=False).predict("hello", model=inside.endless, max_new_tokens=4, api_name="/chat")
    for job in reversed(jobs):
        job.cancel()
    until(lambda: not turn.running() and not inside.waiting())
