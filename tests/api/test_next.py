"""/next, as a program asks it."""

import pytest
from gradio_client.exceptions import AppError

QUESTION = [{"role": "user", "content": "Hello, who are you?"}]
GREEDY = {"model": "budgie", "strategy": "greedy"}


def test_a_program_steps_through_an_answer(client):
    asked = {"model": "budgie", "strategy": "greedy", "max_new_tokens": 6, "api_name": "/chat"}
    answer = client.predict(QUESTION[0]["content"], messages=[], **asked)
    ids = []
    for _ in range(6):
        found = client.predict(QUESTION, ids=ids, settings=GREEDY, api_name="/next")
        ids = [*found["ids"], found["score"]["id"]]
    found = client.predict(QUESTION, ids=ids, text=" and", guess=" then", settings=GREEDY, api_name="/next")
    assert "".join(found["pieces"]).strip() == f"{answer} and"
    assert found["guess"]["rank"] >= 1 and found["guess"]["text"] and found["guess"]["candidates"] == []
    assert found["kept"] == found["vocabulary"] and found["chain"] == [] and not found["ended"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ids": [10**9]}, "tokens that Budgie"),
        ({"ids": "x"}, "whole numbers"),
        ({"text": "x" * 3000}, "at most 2000 characters"),
        ({"guess": 7}, "at most 2000 characters"),
        ({"settings": {"model": "budgie", "strategy": "beams"}}, "no next token of its own"),
        ({"settings": {"model": "parrot"}}, "Choose a model that runs here"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_with_a_sentence(client, given, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(**{"messages": QUESTION, "settings": GREEDY} | given, api_name="/next")
