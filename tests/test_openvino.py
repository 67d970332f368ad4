"""The OpenVINO engine says what Budgie says, stops, repeats with its seed, and is never asked for what it lacks."""

import os
import subprocess
import sys
import threading

import pytest

from parley import catalog
from parley.engines.base import Answer
from parley.engines.paired import PairedEngine, pays
from parley.messages import build_messages
from parley.settings import Settings
from parley.ui.bubbles import quiet_line
from tests.conftest import ROOT, until

pytest.importorskip("openvino_genai")

from parley.engines import openvino, openvino_export


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def pair(budgie, cache):
    return PairedEngine(budgie, cache)


@pytest.fixture(scope="module")
def engine(budgie, cache, pair):
    until(lambda: not pair.preparing, 110)
    return openvino.OpenVinoEngine(budgie.loaded, openvino_export.find(catalog.BUDGIE / "weights", cache))


def answer(engine, question, cancel=None, **values):
    chosen = Settings.check({"strategy": "greedy", "max_new_tokens": 40, **values})
    return sum(engine.stream(build_messages([], question), chosen, cancel or threading.Event()), Answer())


def test_greedy_search_answers_as_the_torch_model_does(engine, budgie):
    questions = ("Hello, who are you?", "What is top-p sampling?", "What is the capital of Japan?", "Count to 9.")
    same = [answer(engine, question).text == answer(budgie, question).text for question in questions]
    assert sum(same) >= 3  # one byte a weight may tip the balance somewhere


def test_equal_seeds_give_equal_text(engine):
    drawn = {"strategy": "sampling", "temperature": 1.5, "top_p": 1.0}
    first, again, other = (answer(engine, "Tell me a story.", seed=seed, **drawn).text for seed in (3, 3, 4))
    assert first == again != other


def test_a_stop_string_and_the_limit_end_it(engine):
    assert answer(engine, "Count to 9.", stop="4").text.rstrip(", ").endswith("3")
    short = answer(engine, "Tell me a story.", max_new_tokens=5)
    assert (short.finish, short.usage.new_tokens) == ("length", 5)


def test_stop_ends_it_at_once(engine):
    cancel = threading.Event()
    cancel.set()
    assert answer(engine, "Tell me a story.", cancel).finish == "stopped"


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"strategy": "greedy"}, ""),
        ({"strategy": "beams"}, "beams"),
        ({"strategy": "sampling", "min_p": 0.1}, "min_p"),
        ({"strategy": "greedy", "thinking_budget": 5}, "thinking_budget"),
    ],
    ids=str,
)
def test_what_it_lacks_is_left_to_the_torch_model(values, left):
    assert openvino.refusal(Settings.check(values)) == left


def test_a_cancelled_export_leaves_nothing(tmp_path):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(openvino_export.Stopped):
        openvino_export.export(catalog.BUDGIE / "weights", lambda _: None, cancel, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_torch_model_answers_while_the_export_runs_and_openvino_after_it(budgie, pair, engine, tmp_path):
    fresh = PairedEngine(budgie, tmp_path)
    assert "PyTorch float32" in (line := quiet_line(answer(fresh, "Hello!"))) and "Preparing the faster engine" in line
    assert "PyTorch" in (line := quiet_line(answer(pair, "Hello!", strategy="beams"))) and "Preparing" not in line
    assert "OpenVINO int8" in (line := quiet_line(answer(pair, "Hello!"))) and "Preparing" not in line
    until(lambda: any(tmp_path.iterdir()))
    del fresh  # as the pool does when memory is short
    until(lambda: not any(tmp_path.iterdir()))


def test_a_model_as_small_as_budgie_is_left_to_torch(budgie):
    assert not pays(budgie.loaded)


def test_the_library_reports_to_nobody(tmp_path):
    program = "import parley.engines, openvino, sys; print([m for m in sys.modules if 'openvino_telemetry.' in m])"
    surroundings = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=surroundings, cwd=ROOT, check=False
    )
    assert (ran.returncode, ran.stdout, list(tmp_path.iterdir())) == (0, "[]\n", []), ran.stderr
