"""/v1/models and /tokenize."""

import openai
import pytest

from parley.serving import turn

TOOLS = [{"type": "function", "function": {"name": "add"}}]


def test_the_models_are_listed_and_found(inside, openai_client):
    listed = openai_client.models.list().data
    assert [each.id for each in listed] == inside.models
    assert listed[0].max_model_len == 1024 and listed[0].tools is False
    assert openai_client.models.retrieve("budgie").id == "budgie"
    with pytest.raises(openai.NotFoundError, match="Did you mean 'parrot'"):
        openai_client.models.retrieve("parot")


def test_a_name_with_a_slash_is_looked_up_whole(http):
    answer = http.get("/v1/models/org/name")
    assert answer.status_code == 404 and "'org/name'" in answer.json()["error"]["message"]


def test_a_model_with_tools_says_so(openai_client, handy):
    assert openai_client.models.retrieve(handy).tools is True


def tokenize(http, **body):
    return http.post("/tokenize", json={"model": "budgie"} | body)


def test_the_tokens_of_a_text_and_of_a_conversation_are_those_of_the_model(inside, http):
    tokenizer = inside.engine("budgie").loaded.tokenizer
    answer = tokenize(http, prompt="Hello 🦉").json()
    assert answer["tokens"] == tokenizer.encode("Hello 🦉") and answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 1024
    messages = [{"role": "user", "content": "Hello"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenize(http, messages=messages).json()["tokens"] == rendered
    assert not turn.running()


def test_tools_are_part_of_a_conversation(http, handy):
    messages = [{"role": "user", "content": "Hello"}]
    given = {"model": handy, "messages": messages}
    counts = [tokenize(http, **given, **more).json()["count"] for more in ({}, {"tools": TOOLS})]
    assert counts[0] < counts[1]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "Send either a prompt"),
        ({"prompt": "a", "messages": []}, "Send either a prompt"),
        ({"promt": "a"}, "Did you mean 'prompt'?"),
        ({"prompt": 7}, "prompt must be text"),
        ({"prompt": "a", "model": "parrot"}, "Choose a model that runs here"),
        (
            {
                "messages": [{"role": "user", "content": "a"}],
                "tools": TOOLS,
            },
            "knows no tools",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(http, body, sentence):
    answer = tokenize(http, **body)
    assert answer.status_code == 400 and sentence in answer.json()["error"]["message"]
