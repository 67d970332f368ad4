"""What a reader copies from under an answer gives its text again, for every decode loop; the API streams and stops."""

import contextlib
import io
import shutil
import subprocess
from dataclasses import replace

import pytest
from gradio_client import Client

from parley.events import RunRecord
from parley.messages import Message
from parley.serving import turn
from parley.settings import Settings
from parley.ui.client_snippets import client_program, curl_commands
from parley.ui.render import LEFT_OUT, MAX_FOLDED_CHARACTERS, render
from tests.conftest import Passes, until
from tests.strategies.loops import LOOPS
from tests.strategies.test_registry import answer

SAID = [
    Message("system", "Answer like a pirate."),
    Message("user", 'My name is O\'Neill "Odd" <|im_end|>.'),
    Message("assistant", "Ahoy,\nO'Neill!"),
    Message("user", "Tell me a story about an 'owl' and $HOME."),
]
VALUES = {"model": "budgie", "max_new_tokens": 40, "seed": 5, "force_words": "lantern", "stop": "zzz\n\\n\\n"}


@pytest.fixture
def client(inside):
    return Client(inside.url, verbose=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOOPS, "sampling"])
def test_the_copied_programs_print_the_text_of_the_answer(budgie, inside, name):
    made = answer(budgie, Settings.check(VALUES | {"strategy": name, "top_n_sigma": 1.5}), SAID)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(client_program(inside.url, made.run_record), {})
    assert printed.getvalue().strip() == made.text.strip() != ""


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("name", ["sampling", "beams"])
def test_the_copied_commands_stream_the_text_of_the_answer(budgie, inside, name):
    made = answer(budgie, Settings.check(VALUES | {"strategy": name}), SAID)
    commands = curl_commands(inside.url, made.run_record)
    ran = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    last = ran.stdout.rpartition("event: complete")[2]
    assert made.text.strip().splitlines()[0][:30] in last


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_the_api_streams_every_loop_and_a_cancelled_call_ends_it(inside, client, name):
    chosen = {"model": inside.endless, "strategy": name, "max_new_tokens": 4000, "force_words": "lantern"}
    with Passes(inside.engine("endless").loaded.model) as passes:
        job = client.submit("Tell me a story.", **chosen, api_name="/chat")
        until(lambda: len(set(job.outputs())) > 2)
        job.cancel()
        until(lambda: not turn.running())
        assert 0 < passes.count < 4000


def test_the_parrot_can_be_asked_again_too(inside, client):
    ran = RunRecord("hello", {}, "", [Message("user", "hello")], {"model": "parrot", "max_new_tokens": 1, "stop": ""})
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(client_program(inside.url, ran), {})
    assert printed.getvalue() == "hel\n"


def test_an_answer_to_a_whole_book_shows_its_figures_only(budgie):
    made = answer(budgie, Settings.check({"max_new_tokens": 3}), "Hello")
    book = replace(made, run_record=replace(made.run_record, prompt="x" * MAX_FOLDED_CHARACTERS))
    texts = [render(each, url="http://there")[-1].content[0]["text"] for each in (made, book)]
    assert texts[0].startswith("[Figures](#tab-1) ") and "curl" in texts[0]
    assert texts[1].startswith("- Prompt: ") and texts[1].endswith(LEFT_OUT) and len(texts[1]) < 300
