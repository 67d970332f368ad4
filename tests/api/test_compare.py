"""/compare, as a program asks it."""

import pytest
from gradio_client.exceptions import AppError

from parley.serving import turn
from tests.conftest import Passes, until

QUESTION = "Tell me a story about an owl."
GREEDY = {"model": "budgie", "strategy": "greedy", "max_new_tokens": 40}


def test_a_program_gets_all_columns_as_they_grow(client):
    columns = [GREEDY, GREEDY | {"strategy": "sampling", "seed": 7}, GREEDY | {"strategy": "beams"}]
    job = client.submit(QUESTION, columns, api_name="/compare")
    states = list(job)
    *growing, last = states
    assert last["over"] and not any(each["over"] for each in growing)
    assert [each["finish"] for each in last["columns"]] == ["length"] * 3 or last["columns"][0]["finish"] == "end"
    assert any(0 < len(each["columns"][0]["text"]) < len(last["columns"][0]["text"]) for each in growing)
    assert any(each["columns"][2]["beams"] for each in growing), "the beams are seen while they are searched"
    alone = client.predict(QUESTION, messages=[], **GREEDY, api_name="/chat")
    assert last["columns"][0]["text"] == alone
    for each in last["columns"]:
        figures = each["figures"]
        assert figures["tokens"] > 0 and figures["time_to_first_token"] > 0 and figures["tokens_per_second"] > 0
        assert figures["logprob"] < 0 and figures["perplexity"] > 1 and figures["bits_per_byte"] is None
        assert 0 < figures["distinct_2"] <= 1 and 0 <= figures["repeated_4grams"] < 1 and figures["words"] > 5
        assert each["stored"]["ids"] and each["stored"]["settings"]["seed"] is not None
        assert each["model"] and each["strategy"]
    assert last["columns"][1]["settings"]["seed"] == 7


def test_models_of_different_tokens_have_bits_per_byte_and_no_perplexity(client):
    last = client.predict(QUESTION, [GREEDY, {"model": "parrot"}], api_name="/compare")
    assert not last["one_tokenizer"] and last["scored_by"] == last["columns"][0]["model"]
    assert all(each["figures"]["bits_per_byte"] > 0 for each in last["columns"])
    assert all(each["figures"]["perplexity"] is None for each in last["columns"])
    assert last["columns"][0]["figures"]["logprob"] < 0


def test_the_conversation_before_is_read(client):
    before = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello, Ada!"}]
    asked = ("What is my name?", [GREEDY, GREEDY | {"seed": 2}])
    last = client.predict(*asked, messages=before, api_name="/compare")
    assert "Ada" in last["columns"][0]["text"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"columns": [GREEDY]}, "2 to 6 columns; this one has 1. Add some"),
        ({"columns": [GREEDY] * 7}, "2 to 6 columns; this one has 7. Remove some"),
        ({"columns": "greedy"}, "columns are a list of settings"),
        ({"columns": [GREEDY, "beams"]}, "columns are a list of settings"),
        ({"columns": [GREEDY, GREEDY | {"temprature": 1}]}, "Column 2: There is no setting called 'temprature'"),
        ({"columns": [GREEDY | {"num_beams": 99}, GREEDY]}, "Column 1: Beams must be"),
        ({"columns": [GREEDY, GREEDY | {"model": "gpt-9"}]}, "Column 2: There is no model called"),
        ({"columns": [GREEDY, GREEDY | {"strategy": "contrastive", "model": "stateful"}]}, "Column 2: "),
        ({"message": ""}, "There is no question to answer"),
        ({"message": 7}, "must be text"),
        ({"messages": "hello"}, "list of messages"),
        ({"prompt_ids": ["x"]}, "whole numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_sentence(client, given, sentence):
    given = {"message": QUESTION, "columns": [GREEDY, GREEDY | {"seed": 1}]} | given
    with pytest.raises(AppError, match=sentence):
        client.predict(**given, api_name="/compare")


def test_a_comparison_that_is_cancelled_ends_within_a_pass(client, inside):
    talker = {"model": "endless", "strategy": "greedy", "max_new_tokens": 4000}
    with Passes(inside.engine("endless").loaded.model) as passes:
        job = client.submit(QUESTION, [talker, talker | {"strategy": "sampling"}], api_name="/compare")
        until(lambda: job.outputs() and all(each["text"] for each in job.outputs()[-1]["columns"]))
        job.cancel()
        until(lambda: not turn.running())
        assert passes.count < 2000
