"""Each example runs: the two parrots of the tutorial, and one call through gradio_client."""

import importlib
import itertools
import subprocess
import sys

import pytest
from gradio_client import Client

from tests.conftest import ROOT


@pytest.fixture
def served():
    """Serves an example and gives a client of it."""
    demos = []

    def serve(name):
        demo = importlib.import_module(f"examples.{name}").demo
        demos.append(demo)
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
        return Client(url, verbose=False)

    yield serve
    for demo in demos:
        demo.close()


def test_the_parrot_repeats(served):
    assert served("parrot").predict("Polly wants a cracker", api_name="/parrot") == "Polly wants a cracker"


def test_the_streaming_parrot_repeats_a_few_characters_at_a_time(served):
    pieces = list(served("streaming_parrot").submit("Polly wants a cracker", api_name="/parrot"))
    assert len(pieces) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
    assert pieces[-1] == "Polly wants a cracker"


@pytest.mark.slow
def test_one_call_prints_the_answer_as_it_arrives(space):
    program = [sys.executable, "examples/call.py", space.url, "What is top-p sampling?"]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "top-p" in ran.stdout.lower()
