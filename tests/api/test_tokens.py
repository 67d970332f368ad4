"""/tokens, as a program asks it."""

import math

import pytest
from gradio_client.exceptions import AppError

from parley.messages import Message
from tests.engines.openvino.asking import answer

QUESTION = [{"role": "user", "content": "Hello, who are you?"}]


def test_a_program_learns_how_likely_each_token_of_an_answer_was(client):
    asked = {"model": "budgie", "strategy": "greedy", "max_new_tokens": 20, "api_name": "/chat"}
    answer = client.predict(QUESTION[0]["content"], messages=[], **asked)
    scores = client.predict(QUESTION, answer, settings={"model": "budgie", "strategy": "greedy"}, api_name="/tokens")
    assert "".join(each["text"] for each in scores) == answer
    for each in scores[1:]:  # the first one was made with a space before it, which the text does not have
        assert each["rank"] == each["after_rank"] == 1 and each["candidates"][0]["id"] == each["id"]
        assert len(each["candidates"]) >= 10 and each["entropy"] >= 0


def test_it_learns_what_removed_a_candidate_and_what_was_drawn(client):
    settings = {"model": "budgie", "strategy": "sampling", "seed": 1, "top_k": 2, "top_p": 1.0}
    [score, *_] = client.predict(QUESTION, "I am a bird.", settings=settings, api_name="/tokens")
    removed = [each["removed_by"] for each in score["candidates"]]
    assert removed[:2] == ["", ""] and set(removed[2:]) == {"top_k"}
    assert [each["after"] is None for each in score["candidates"]] == [bool(each) for each in removed]
    assert sum(math.exp(each["after"]) for each in score["candidates"][:2]) == pytest.approx(1)
    assert all(each["quotient"] is not None for each in score["candidates"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"answer": ""}, "0 tokens"),
        ({"ids": [1, 10**9]}, "tokens that Budgie"),
        ({"ids": ["one"]}, "whole numbers"),
        ({"answer": "x", "messages": "hello"}, "list of messages"),
        ({"answer": "x", "settings": {"temprature": 1}}, "temprature"),
        ({"answer": "x", "settings": {"model": "parrot"}}, "Choose a model that runs here"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_a_sentence(client, given, sentence):
    given = {"settings": {"model": "budgie"}, "messages": QUESTION} | given
    with pytest.raises(AppError, match=sentence):
        client.predict(**given, api_name="/tokens")


def test_it_learns_how_a_search_came_to_exact_tokens(client, budgie):
    made = answer(budgie, [Message(**QUESTION[0])], strategy="beams", max_new_tokens=8)
    settings = {"model": "budgie", "strategy": "beams", "max_new_tokens": 8}
    scores = client.predict(QUESTION, ids=list(made.ids), settings=settings, api_name="/tokens")
    assert all([each["chosen"] for each in score["rivals"]].count(True) == 1 for score in scores)
    assert [next(each for each in score["rivals"] if each["chosen"])["id"] for score in scores] == list(made.ids)
    made = answer(budgie, [Message(**QUESTION[0])], strategy="prompt_lookup", max_new_tokens=8)
    settings |= {"strategy": "prompt_lookup"}
    scores = client.predict(QUESTION, ids=list(made.ids), settings=settings, api_name="/tokens")
    assert [each["drafted"] for each in scores].count(True) == made.usage.accepted


def test_a_text_without_a_conversation_is_only_scored(client):
    scores = client.predict([], "An owl, 3 €.", settings={"model": "budgie"}, api_name="/tokens")
    assert "".join(each["text"] for each in scores).endswith("An owl, 3 €.")
    assert scores[0]["logprob"] is None and not scores[0]["candidates"]
    assert all(each["rank"] >= 1 and len(each["candidates"]) >= 10 for each in scores[1:])
