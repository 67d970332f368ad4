"""/v1/completions as people and harnesses for evaluation ask it: texts or tokens, echo, logprobs in the old form."""

import math

import openai
import pytest

from parley.serving import turn
from parley.settings import Settings

TEXT = "Once upon a time there was an owl"


@pytest.fixture
def complete(openai_client):
    def ask(prompt=TEXT, model="budgie", **asked):
        asked = {"temperature": 0, "max_tokens": 4} | asked
        return openai_client.completions.create(model=model, prompt=prompt, **asked)

    return ask


@pytest.fixture
def ids(inside):
    return inside.engine("budgie").loaded.tokenizer.encode(TEXT)


def test_a_text_goes_on_without_a_template(complete, ids):
    answer = complete()
    assert answer.object == "text_completion" and answer.usage.prompt_tokens == len(ids)
    assert answer.choices[0].finish_reason in ("length", "stop") and answer.choices[0].text
    assert complete(ids).choices[0].text == answer.choices[0].text


def test_echo_puts_the_prompt_first(complete, ids):
    after = complete().choices[0].text
    assert complete(echo=True).choices[0].text == TEXT + after
    assert complete(ids, echo=True).choices[0].text == TEXT + after


def test_a_list_of_prompts_has_the_answers_of_each(complete):
    prompts = [TEXT, "The budgie said", "It was late and", *[f"Number {n}" for n in range(7)]]
    together = complete(prompts)
    assert [each.index for each in together.choices] == list(range(10))
    assert [each.text for each in together.choices] == [complete(each).choices[0].text for each in prompts]
    drawn = complete(prompts[:2], n=2, temperature=1.0, seed=3)
    alone = [complete(each, temperature=1.0, seed=seed).choices[0].text for each in prompts[:2] for seed in (3, 4)]
    assert [each.text for each in drawn.choices] == alone


def test_a_harness_gets_the_log_likelihood_of_a_continuation(inside, complete, ids):
    """As lm-evaluation-harness asks: tokens, echo, one new token, which it drops, and the likeliest token beside."""
    (choice,) = complete([ids], max_tokens=1, logprobs=1, echo=True).choices
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(ids) + 1
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    scores = turn.text_scores(Settings.check({"model": "budgie"}), ids)
    assert logprobs.token_logprobs[1 : len(ids)] == [each.logprob for each in scores[1:]]
    assert all(math.isfinite(each) and each <= 0 for each in logprobs.token_logprobs[1:])
    rows = zip(logprobs.token_logprobs[1:], logprobs.top_logprobs[1:], strict=True)
    assert [max(top.values()) == own for own, top in rows] == [each.rank == 1 for each in scores[1:]] + [True]
    assert "".join(logprobs.tokens) == choice.text
    rows = zip(logprobs.text_offset, logprobs.tokens, strict=True)
    assert all(choice.text[at:].startswith(name) for at, name in rows)


def test_max_tokens_0_only_scores(complete, ids):
    (choice,) = complete(max_tokens=0, echo=True, logprobs=1).choices
    assert choice.text == TEXT and len(choice.logprobs.tokens) == len(ids)
    assert complete(max_tokens=0, echo=True).choices[0].text == TEXT
    assert complete(max_tokens=0, echo=True, logprobs=1).usage.prompt_tokens == len(ids)


def test_the_parts_of_a_character_are_named_by_their_bytes(complete):
    (choice,) = complete("An owl: 🦉!", max_tokens=0, echo=True, logprobs=1).choices
    parts = [name for name in choice.logprobs.tokens if name.startswith("bytes:")]
    owl = bytes.fromhex("".join(parts).replace("bytes:", "").replace("\\x", ""))
    assert owl.decode().strip() == "🦉" and len(parts) > 1 and choice.text == "An owl: 🦉!"


def test_the_tokens_that_follow_are_told_too(complete):
    (choice,) = complete(logprobs=3).choices
    assert "".join(choice.logprobs.tokens) == choice.text
    assert all(3 <= len(top) <= 4 for top in choice.logprobs.top_logprobs)


def test_it_streams(complete):
    chunks = list(complete([TEXT, "The owl"], stream=True, echo=True, stream_options={"include_usage": True}))
    texts = ["", ""]
    for each in (each for chunk in chunks for each in chunk.choices):
        texts[each.index] += each.text
    assert texts == [each.text for each in complete([TEXT, "The owl"], echo=True).choices]
    assert chunks[-1].usage.total_tokens > 0


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"prompt": []}, "1 to 64 prompts"),
        ({"prompt": ["x"] * 65}, "1 to 64 prompts"),
        ({"prompt": [[1], []]}, "1 to 64 prompts"),
        ({"prompt": [[99_999_999]]}, "has no token 99999999"),
        ({"prompt": [[-1]]}, "has no token -1"),
        ({"prompt": [1.5]}, "prompt must be"),
        ({"max_tokens": 0}, "Set echo to true"),
        ({"suffix": "x"}, "Leave it out"),
        ({"best_of": 3}, "best_of must be n"),
        ({"prompt": "word " * 3000}, "Shorten it"),
        ({"prompt": "word " * 3000, "echo": True, "max_tokens": 0, "logprobs": 1}, "Shorten it"),
        ({"logprobs": 99}, "logprobs must be a whole number from 0 to 20"),
        ({"model": "parrot", "logprobs": 1}, "tells no probabilities"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_told(complete, bad, sentence):
    with pytest.raises(openai.BadRequestError, match=sentence):
        complete(**bad)
