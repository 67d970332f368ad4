"""`n` with a beam search: its n best hypotheses, of one search and one reading of the prompt, by both doors."""

import functools

import openai
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.conftest import Passes, until
from tests.serving.test_comparison import chunks

STORY = "Tell me a story about an owl."
MESSAGES = [{"role": "user", "content": STORY}]
SEARCHES = {
    "beams": {"strategy": "beams"},
    "beam_sampling": {"strategy": "beam_sampling", "seed": 4, "temperature": 1.2},
    "diverse_beams": {"strategy": "diverse_beams", "beam_groups": 2, "beams_per_group": 2},
    "constrained_beams": {"strategy": "constrained_beams", "force_words": "lantern"},
}
searches = pytest.mark.parametrize("asked", SEARCHES.values(), ids=SEARCHES)


@pytest.fixture
def generate(inside):
    """Each call is that of a new session, so that nothing is cached for it."""

    def ask(*asked, **values):
        client = Client(inside.url, verbose=False)
        return client.predict(*asked, **{"model": "budgie", "max_new_tokens": 12} | values, api_name="/generate")

    return ask


@pytest.fixture
def chat(inside):
    with openai.OpenAI(base_url=f"{inside.url}/v1", api_key="none", max_retries=0, timeout=90) as client:
        yield functools.partial(client.chat.completions.create, model="budgie", max_tokens=12)


@searches
def test_several_hypotheses_cost_one_reading_and_one_search(inside, chat, asked):
    engine, costs = inside.engine("budgie"), []
    until(lambda: not engine.prefix_cache.is_reading)  # answers of other tests
    for n in (1, 3):
        with chunks() as read, Passes(engine.loaded.model) as passes:
            made = chat(messages=MESSAGES, n=n, extra_body=asked)
        costs.append((sum(read), passes.count))
    assert costs[0] == costs[1] and len({each.message.content for each in made.choices}) == 3


@searches
def test_the_best_hypotheses_are_told_best_first(generate, asked):
    result, one = generate(STORY, **asked, n=3), generate(STORY, **asked)
    texts = [each["text"] for each in result["choices"]]
    assert texts[0] == result["text"] == one["text"] and len(set(texts)) == 3
    scores = [each["score"] for each in result["choices"]]
    assert one["score"] == scores[0] < 0
    if asked["strategy"] == "constrained_beams":
        assert "lantern" in texts[0]  # what has the word comes before likelier texts
    else:
        assert scores == sorted(scores, reverse=True)
    counts = [each["usage"]["completion_tokens"] for each in result["choices"]]
    assert sum(counts) == result["usage"]["completion_tokens"] and max(counts) <= 12
    assert len({each["settings"]["seed"] for each in result["choices"]}) == 1
    assert all(each["finish_reason"] in ("stop", "length") for each in result["choices"])


@searches
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_openai_door_tells_the_same_hypotheses(generate, chat, asked, stream):
    wanted = generate(STORY, **asked, n=3)
    made = chat(messages=MESSAGES, n=3, extra_body=asked, stream=stream)
    texts, reasons = ["", "", ""], [None] * 3
    for choice in (choice for chunk in (made if stream else [made]) for choice in chunk.choices):
        texts[choice.index] += (choice.delta if stream else choice.message).content or ""
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [each["text"] for each in wanted["choices"]]
    assert reasons == [each["finish_reason"] for each in wanted["choices"]]
    assert stream or made.usage.completion_tokens == wanted["usage"]["completion_tokens"]


def test_a_stream_of_results_has_all_hypotheses_so_far(inside, unthrottled):
    job = Client(inside.url, verbose=False).submit(
        STORY, model="budgie", strategy="beams", n=3, max_new_tokens=16, api_name="/generate"
    )
    *steps, last = list(job)
    assert all(len(each["choices"]) == 3 for each in (*steps, last))
    assert any(all(choice["text"] for choice in each["choices"]) for each in steps)
    assert {choice["finish_reason"] for each in steps for choice in each["choices"]} == {None}


def test_the_probabilities_of_each_hypothesis_are_its_own(generate, chat):
    result = generate(STORY, strategy="beams", n=3, logprobs=2, length_penalty=1.0)
    for each in result["choices"]:
        assert b"".join(bytes(token["bytes"]) for token in each["logprobs"]).decode() == each["text"]
    length = result["choices"][-1]["usage"]["completion_tokens"]
    if len(result["choices"][-1]["logprobs"]) == length:  # no end token
        total = sum(token["logprob"] for token in result["choices"][-1]["logprobs"])
        assert total / length == pytest.approx(result["choices"][-1]["score"], abs=1e-3)
    extra = {"strategy": "beams", "length_penalty": 1.0}
    for choice, each in zip(
        chat(messages=MESSAGES, n=3, logprobs=True, extra_body=extra).choices, result["choices"], strict=True
    ):
        assert [token.logprob for token in choice.logprobs.content] == [one["logprob"] for one in each["logprobs"]]


def test_each_prompt_of_a_list_has_its_hypotheses(inside):
    prompts = ["Once upon a time", "The sea"]
    extra = {"strategy": "beams"}
    with openai.OpenAI(base_url=f"{inside.url}/v1", api_key="none", max_retries=0, timeout=90) as client:
        complete = functools.partial(client.completions.create, model="budgie", max_tokens=6, extra_body=extra)
        made = complete(prompt=prompts, n=2, echo=True, logprobs=1).choices
        alone = [complete(prompt=each, n=2, echo=True).choices for each in prompts]
    assert [each.text for each in made] == [each.text for answers in alone for each in answers]
    assert [each.index for each in made] == [0, 1, 2, 3] and len({each.text for each in made}) == 4
    assert all("".join(each.logprobs.tokens) == each.text for each in made)


def test_a_form_with_fewer_answers_than_asked_for_says_so(generate):
    choices = generate(STORY, strategy="beams", n=3, answer_form="choices", answer_pattern="red tea")["choices"]
    assert {each["text"] for each in choices} == {"red tea"} and choices[0]["notices"] == []
    assert "no more different answers than 1" in choices[2]["notices"][0]


def test_more_hypotheses_than_beams_are_refused_with_what_is_valid(generate, chat):
    with pytest.raises(AppError, match="keeps 4 beams, so n may be 1 to 4"):
        generate(STORY, strategy="beams", n=5)
    with pytest.raises(openai.BadRequestError, match="keeps 2 beams") as refused:
        chat(messages=MESSAGES, n=3, extra_body={"strategy": "diverse_beams", "beam_groups": 2, "beams_per_group": 1})
    assert refused.value.body["valid"] == {"type": "integer", "minimum": 1, "maximum": 2}
