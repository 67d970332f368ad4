"""What the server says of choices where no browser is needed to see it."""

import asyncio
import threading

import pytest

from parley.engines.base import TurnRequest
from parley.messages import Message
from parley.models.precision import MEASURED_ROUNDING
from parley.settings import Settings
from parley.ui.views import choices, next_token
from tests.conftest import engine

GREEDY = Settings.check({"model": "budgie", "strategy": "greedy"})


def test_rounded_weights_are_named_with_what_they_move():
    model = engine(QUANTIZATION="int8")
    found = model.choices(TurnRequest.of([Message("user", "Hi")], GREEDY, threading.Event()), "Hello, I am")
    assert choices.described(found, GREEDY)["rounding"] == MEASURED_ROUNDING["int8"]


def test_a_model_on_a_lent_gpu_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    monkeypatch.setenv("MODEL_IDS", "budgie,HuggingFaceTB/SmolLM2-360M-Instruct")
    asked = {"number": 3, "text": "An owl.", "settings": {"model": "HuggingFaceTB/SmolLM2-360M-Instruct"}}
    found = asyncio.run(next_token.look(asked | {"messages": [{"role": "user", "content": "Hi"}]}))
    assert found["number"] == 3 and "runs on a GPU that is lent by the second" in found["error"]


@pytest.mark.parametrize(
    "asked", [None, [], {"settings": {"top_p": "x"}}, {"text": 7}, {"stored": 3, "text": "x" * 10**5}]
)
def test_what_has_no_form_gets_a_sentence(asked):
    assert asyncio.run(choices.look(asked))["error"].endswith(".")
