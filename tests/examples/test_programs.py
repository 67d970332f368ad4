"""Each example that calls the app, against the app, as its first line says to run it."""

import asyncio
import json
import re
import shutil
import subprocess
import sys

import pytest
from gradio_client import Client

from examples import batch, cancel, compare_strategies, json_answer, logprobs, openai_client, several_at_once
from tests.conftest import ROOT, Space, lacking

MAX_LINES = 60
FOLDER = ROOT / "examples"
EXAMPLES = [path for path in sorted(FOLDER.iterdir()) if path.is_file() and path.suffix != ".ipynb"]


def run(*program, **options):
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **options)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(path):
    assert len(path.read_text().splitlines()) < MAX_LINES


@pytest.mark.parametrize("strategy", ["sampling", "beams"])
def test_the_openai_client_prints_an_answer_of_any_strategy(inside, capsys, strategy):
    text = openai_client.ask(inside.url, strategy)
    printed = capsys.readouterr().out
    assert text and text in printed and " tokens" in printed


def test_the_probability_of_each_token_is_printed(inside, capsys):
    tokens = logprobs.show(inside.url, "Hello, who are you?")
    assert len(capsys.readouterr().out.splitlines()) == len(tokens) > 3


def test_a_batch_is_answered_in_order_with_a_progress_bar(inside, capsys):
    prompts = [f"Repeat after me: number {n}." for n in range(5)]
    results = batch.answer_all(inside.url, prompts, model="budgie", strategy="greedy", max_new_tokens=12)
    assert [str(n) in each["text"] for n, each in enumerate(results)] == [True] * 5
    assert "5/5" in capsys.readouterr().err


def test_an_answer_is_an_object_of_the_schema(inside):
    made = json_answer.ask(inside.url, "My name is Mia, and I am 7 years old. Who am I?")
    assert set(made) == {"name", "age"} and isinstance(made["name"], str) and 0 <= made["age"] <= 99


def test_several_are_asked_at_once(inside):
    answers = asyncio.run(several_at_once.ask(inside.url, several_at_once.QUESTIONS))
    assert "7" in answers[1] and "top-p" in answers[2].lower()


def test_a_cancelled_call_keeps_its_words(inside):
    result = cancel.first_words(inside.url, 5)
    assert len(result["text"].split()) >= 5 and result["finish_reason"] == "cancelled"


def test_strategies_are_compared_side_by_side_with_their_figures(inside):
    asked = {"model": "budgie", "max_new_tokens": 20}
    answers = compare_strategies.compare(inside.url, "Hello, who are you?", compare_strategies.COLUMNS, **asked)
    lines = list(compare_strategies.side_by_side(answers, 140))
    assert re.split(r"  +", lines[0]) == ["Greedy", "Beam search", "Sampling"]
    assert re.search("tokens_per_second: [0-9.]+   +tokens_per_second: ", "\n".join(lines))
    assert [answer["text"].split()[0] in lines[2] for answer in answers] == [True] * 3


def test_curl_streams_from_both_doors(inside):
    printed = run("sh", "examples/curl.sh", inside.url)
    assert "data: [DONE]" in printed and "event: complete" in printed
    last = json.loads(printed.strip().splitlines()[-1].removeprefix("data: "))[0]
    assert "Budgie" in last["text"] and last["finish_reason"] == "length"


def test_javascript_prints_the_answer(inside):
    if not shutil.which("node"):
        lacking("There is no node to run JavaScript.")
    assert "Budgie" in run("node", "examples/client.mjs", inside.url)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("openai_client.py", "logprobs.py", "several_at_once.py"),
        *("cancel.py", "json_answer.py", "compare_strategies.py"),
    ],
)
def test_it_runs_as_a_program(inside, name):
    assert run(sys.executable, f"examples/{name}", inside.url).strip()


@pytest.mark.slow
def test_a_batch_runs_as_a_program(inside):
    assert run(sys.executable, "examples/batch.py", inside.url, input="hi\n\nhello\n").count("tokens]") == 2


@pytest.mark.slow
def test_a_conversation_is_kept_for_its_client(space):
    printed = run(sys.executable, "examples/conversation.py", space.url)
    assert printed.count("> ") == 2 and "Mia" in printed.rpartition("> ")[2].partition("\n")[2]


class Own(Space):
    """The app as an example starts it, which has something of its own."""

    def __init__(self, example):
        self.command = ("-m", f"examples.{example}")
        super().__init__(MODEL_IDS="budgie")


@pytest.mark.slow
def test_an_engine_of_your_own_answers():
    space = Own("own_engine")
    asked = {"model": "backwards", "api_name": "/chat"}
    assert Client(space.url, verbose=False).predict("one two three", **asked) == "three two one "
    space.close()


@pytest.mark.slow
def test_a_strategy_of_your_own_is_one_of_all():
    space = Own("own_strategy")
    client = Client(space.url, verbose=False)
    made = client.predict("Hello!", strategy="second_best", max_new_tokens=8, api_name="/generate")
    assert made["usage"]["completion_tokens"] == 8 and made["settings"]["strategy"] == "second_best"
    assert made["text"] != client.predict("Hello!", strategy="greedy", max_new_tokens=8, api_name="/generate")["text"]
    space.close()


@pytest.mark.slow
def test_the_client_of_agents_lists_the_tools_and_gets_an_answer():
    space = Space(MODEL_IDS="budgie", GRADIO_MCP_SERVER="True")
    printed = run(sys.executable, "examples/mcp_client.py", space.url)
    assert "compare: " in printed and len(printed.splitlines()) >= 5
    space.close()
