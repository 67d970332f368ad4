"""The probabilities of an answer, as far as a server tells them."""

import threading

import pytest

from parley.engines.base import TurnRequest
from parley.engines.remote import engine as remote_engine
from parley.errors import BadSetting, ServerFault
from parley.settings import Settings
from tests.engines.remote.test_engine import HELLO, answer, engine


def choices(engine, answer="Once upon a ", messages=HELLO):
    settings = Settings.check({"top_k": 0, "max_new_tokens": 20})
    return engine.choices(TurnRequest.of(messages, settings, threading.Event()), answer)


def test_probabilities_are_those_that_the_server_tells(faulty):
    found = choices(engine(faulty.url, "logprobs"))
    assert [(each.text, each.logprob, each.rank) for each in found.answer] == [
        ("Once ", -0.1, 1),
        ("upon ", -0.5, 1),
        ("a ", -3.0, 2),
    ]
    assert [each.text for each in found.answer[2].candidates] == ["the ", "a "]
    assert found.notes == (remote_engine.ASKED_AGAIN,)
    assert choices(engine(faulty.url, "logprobs"), "other words").notes == (remote_engine.OTHER_WORDS,)
    answer(engine(faulty.url, "logprobs"))
    assert "logprobs" not in faulty.asked[-1][2]  # an answer costs nothing more


def test_a_server_without_probabilities_is_named_in_a_sentence(faulty):
    for messages, sentence in ((HELLO, "tells no probabilities"), ((), "scores only what it writes itself")):
        with pytest.raises(BadSetting, match=sentence):
            choices(engine(faulty.url), messages=messages)
    with pytest.raises(ServerFault):
        choices(engine(faulty.url, "malformed logprobs"))
