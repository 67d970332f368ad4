"""`python app.py` is ended by Ctrl-C and by SIGTERM: in order, whatever it does, and every caller gets an end."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.conftest import ROOT, Space, until

pytestmark = pytest.mark.slow  # each has an app of its own
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 0}
BOTH = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
RESTARTED = r"^The app is being restarted\. Press Retry in 10 s\.$"


def read(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def ended(process, output, number):
    """Waits for the end, and looks at it."""
    assert process.wait(60) == SIGNALS[number]
    said = output()
    assert not re.search("Traceback|terminate called|Aborted|Exception", said), said


@pytest.fixture(scope="module")
def app(endless_folder):
    """Starts it, and closes it at the end."""
    spaces = []

    def start(**environment):
        spaces.append(Space(MODEL_IDS=f"parrot,{endless_folder}", **environment))
        return spaces[-1]

    yield start
    for space in spaces:
        space.close()


@BOTH
def test_an_app_at_rest_ends(app, number):
    space = app()
    space.process.send_signal(number)
    ended(space.process, space.output, number)


@BOTH
def test_answers_that_run_and_wait_end_with_a_sentence(app, endless_folder, number):
    space = app()
    client, model = Client(space.url, verbose=False), Path(endless_folder).name
    asked = {"model": model, "max_new_tokens": 4000, "api_name": "/chat"}
    jobs = [client.submit("hello", **asked) for _ in range(3)]
    until(
        lambda: [any(job.outputs()) for job in jobs].count(True) == 2 and any(job.status().rank == 0 for job in jobs)
    )
    space.process.send_signal(number)
    for job in jobs:
        with pytest.raises(AppError, match=RESTARTED) as refused:
            job.result(timeout=60)
        assert refused.value.title == "stopping"
    ended(space.process, space.output, number)


@BOTH
def test_a_stream_of_the_openai_api_ends_with_the_sentence(app, endless_folder, number):
    space = app()
    body = {"model": Path(endless_folder).name, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    asked = urllib.request.Request(
        f"{space.url}/v1/chat/completions",
        json.dumps(body | {"max_tokens": 4000}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as stream:
        while '"content":"' not in stream.readline().decode().replace(": ", ":").replace('"content":""', ""):
            pass
        space.process.send_signal(number)
        rest = stream.read().decode()  # raises where it is cut off
    assert '"stopping"' in rest and "The app is being restarted." in rest
    ended(space.process, space.output, number)


@BOTH
def test_an_answer_that_is_nearly_over_comes_to_its_end(app, number):
    space = app(MAX_STOP_SECONDS="60")
    said = "word " * 60
    job = Client(space.url, verbose=False).submit(said, model="parrot", api_name="/chat")
    until(lambda: any(job.outputs()))
    space.process.send_signal(number)
    assert job.result(timeout=60) == said
    ended(space.process, space.output, number)


@BOTH
def test_an_app_whose_model_is_being_loaded_ends(app, endless_folder, number):
    space = app()
    model = Path(endless_folder).name
    job = Client(space.url, verbose=False).submit("hello", model=model, max_new_tokens=4000, api_name="/chat")
    until(lambda: f'parley_running{{model="{model}"}} 1' in read(f"{space.url}/metrics"))
    space.process.send_signal(number)
    with pytest.raises(AppError, match=RESTARTED):
        job.result(timeout=60)
    ended(space.process, space.output, number)


@BOTH
def test_an_app_that_is_just_starting_ends(number, endless_folder, tmp_path):
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True
        )
    bit = 1 << (signal.SIGTERM - 1)  # Python itself handles the other one from the beginning
    until(lambda: int(re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1], 16) & bit)
    process.send_signal(number)
    ended(process, log.read_text, number)


def test_a_second_ctrl_c_ends_it_at_once(app, endless_folder):
    space = app(MAX_STOP_SECONDS="600")
    asked = {"model": Path(endless_folder).name, "max_new_tokens": 4000, "api_name": "/chat"}
    job = Client(space.url, verbose=False).submit("hello", **asked)
    until(lambda: any(job.outputs()))
    space.process.send_signal(signal.SIGINT)
    until(lambda: "Ending" in space.output())
    space.process.send_signal(signal.SIGINT)
    ended(space.process, space.output, signal.SIGINT)
