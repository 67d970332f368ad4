"""What the server says of choices where no browser is needed to see it."""

import asyncio
import threading

import pytest

from parley.engines.base import TurnRequest
from parley.messages import Message
from parley.models.precision import MEASURED_ROUNDING
from parley.settings import Settings
from parley.ui.views import choices
from tests.conftest import engine

GREEDY = Settings.check({"model": "budgie", "strategy": "greedy"})


def test_rounded_weights_are_named_with_what_they_move():
    model = engine(QUANTIZATION="int8")
    found = model.choices(TurnRequest.of([Message("user", "Hi")], GREEDY, threading.Event()), "Hello, I am")
    assert choices.described(found, GREEDY)["rounding"] == MEASURED_ROUNDING["int8"]


@pytest.mark.parametrize(
    "asked", [None, [], {"settings": {"top_p": "x"}}, {"text": 7}, {"stored": 3, "text": "x" * 10**5}]
)
def test_what_has_no_form_gets_a_sentence(asked):
    assert asyncio.run(choices.look(asked))["error"].endswith(".")
