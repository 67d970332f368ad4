"""/generate as programs call it with gradio_client: all that is known of an answer, and nothing kept."""

import functools
import itertools
import threading

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from parley.errors import CODES
from parley.serving import turn
from parley.settings import OPTIONS
from parley.strategies import STRATEGIES
from tests.conftest import until
from tests.serving.test_comparison import chunks

QUESTION = "Hello, who are you?"
STORY = "Tell me a story about an owl."
ASKED = {"model": "budgie", "api_name": "/generate"}


@pytest.fixture(scope="module")
def generate(client):
    return functools.partial(client.predict, **ASKED)


def test_a_program_is_told_all_that_is_known_of_an_answer(generate):
    result = generate(STORY, max_new_tokens=5, seed=7, temperature=0.5)
    assert result["finish_reason"] == "length" and result["text"]
    assert result["usage"]["completion_tokens"] == 5 and result["usage"]["prompt_tokens"] > 5
    assert set(result["usage"]) == {"prompt_tokens", "completion_tokens", "cached_tokens"}
    assert result["timings"]["waiting"] >= 0 and result["timings"]["time_to_first_token"] > 0
    assert result["timings"]["tokens_per_second"] > 0
    assert set(result["settings"]) == set(OPTIONS)
    assert (result["settings"]["seed"], result["settings"]["temperature"]) == (7, 0.5)
    assert result["notices"] == [] and result["status"] == "" and "choices" not in result


def test_the_settings_that_come_back_give_the_same_answer(generate):
    first = generate(STORY, max_new_tokens=16)
    assert first["settings"]["seed"] is not None
    again = generate(STORY, **{"model": "budgie"} | first["settings"])
    assert (again["text"], again["finish_reason"]) == (first["text"], first["finish_reason"])


def test_the_strategy_that_ran_is_told(generate):
    assert generate(QUESTION, temperature=0, max_new_tokens=2)["settings"]["strategy"] == "greedy"


def test_a_text_is_the_same_as_a_message_and_nothing_is_kept(generate):
    whole = [{"role": "user", "content": "my name is Odette"}, {"role": "assistant", "content": "Hello, Odette!"}]
    question = {"role": "user", "content": "what is my name?"}
    assert "Odette" in generate([*whole, question], strategy="greedy")["text"]
    alone = [generate(asked, strategy="greedy") for asked in (question["content"], [question])]
    assert "Odette" not in alone[0]["text"] == alone[1]["text"]


def test_developer_is_another_name_of_system(generate):
    texts = [
        generate([{"role": role, "content": "Answer like a pirate."}, {"role": "user", "content": "hi"}], seed=3)
        for role in ("developer", "system")
    ]
    assert texts[0]["usage"]["prompt_tokens"] == texts[1]["usage"]["prompt_tokens"]
    assert texts[0]["text"] == texts[1]["text"]


def test_it_streams_and_only_grows(client, unthrottled):
    steps = list(client.submit(STORY, **ASKED, strategy="greedy", max_new_tokens=24))
    assert len(steps) > 5
    assert all(later["text"].startswith(earlier["text"]) for earlier, later in itertools.pairwise(steps))
    assert [each["finish_reason"] for each in steps] == [None] * (len(steps) - 1) + ["length"]
    assert all(each["settings"]["strategy"] == "greedy" for each in steps)


def test_a_thought_is_apart(generate):
    result = generate("What is 3 plus 4?", thinking=True, strategy="greedy")
    assert result["reasoning"] and "<think>" not in result["text"] + result["reasoning"]
    assert result["finish_reason"] == "stop"


def test_words_that_begin_the_answer_belong_to_it(generate):
    result = generate(QUESTION, answer_start="I am an owl, and", strategy="greedy", max_new_tokens=4, logprobs=0)
    assert result["text"].startswith("I am an owl, and") and len(result["logprobs"]) <= 4
    assert result["text"].endswith(joined(result["logprobs"]))


def test_plain_text_is_gone_on_with(generate):
    result = generate("Once upon a time", mode="plain text", strategy="greedy", max_new_tokens=4)
    assert result["text"] and result["settings"]["mode"] == "plain text"
    assert result["usage"]["prompt_tokens"] < generate("Once upon a time", max_new_tokens=1)["usage"]["prompt_tokens"]


def joined(tokens):
    return b"".join(bytes(each["bytes"]) for each in tokens).decode()


@pytest.mark.parametrize(
    "asked",
    [
        {"strategy": "greedy"},
        {"strategy": "sampling", "seed": 11, "temperature": 1.8, "top_p": 1.0},
        {"strategy": "greedy", "stop": ["tiny"]},
        {"strategy": "greedy", "thinking": True},
        {"strategy": "beams"},
        {"strategy": "contrastive"},
    ],
    ids=str,
)
def test_the_bytes_of_the_tokens_are_the_text(generate, asked):
    result = generate("Hello, who are you? 🦉 Answer with 🦜🏳️‍🌈.", **asked, logprobs=3, max_new_tokens=40)
    assert joined(result["logprobs"]) == result["text"] != ""
    for each in result["logprobs"]:
        assert len(each["top_logprobs"]) == 3 and each["logprob"] <= 0 and each["rank"] >= 1
        assert [top["logprob"] for top in each["top_logprobs"]] == sorted(
            (top["logprob"] for top in each["top_logprobs"]), reverse=True
        )
        if each["rank"] == 1:
            assert each["top_logprobs"][0]["id"] == each["id"]


def test_several_answers_come_from_one_reading_of_the_prompt(inside):
    generate = functools.partial(Client(inside.url, verbose=False).predict, **ASKED)  # nothing is cached for it
    with chunks() as read:
        result = generate(STORY, n=4, seed=5, max_new_tokens=8, temperature=1.0)
    prompt, own = result["usage"]["prompt_tokens"], 2  # each answer reads the last two for their logits
    assert sum(read) == prompt - own + 4 * own
    assert [each["settings"]["seed"] for each in result["choices"]] == [5, 6, 7, 8]
    assert result["usage"]["completion_tokens"] == sum(
        each["usage"]["completion_tokens"] for each in result["choices"]
    )
    alone = [generate(STORY, seed=seed, max_new_tokens=8, temperature=1.0)["text"] for seed in (5, 8)]
    assert [result["choices"][0]["text"], result["choices"][3]["text"]] == alone
    assert result["text"] == alone[0]


@pytest.mark.parametrize(
    ("bad", "sentence", "code"),
    [
        ({"temperature": 99}, r"Temperature must be a number from 0\.0 to 2\.0; 99 is not\.", "bad_setting"),
        ({"strategy": "beam"}, "Did you mean 'beams'", "bad_setting"),
        ({"model": "budgy"}, "Did you mean 'budgie'", "no_such_model"),
        ({"n": 99}, "n must be a whole number from 1 to 8", "bad_setting"),
        ({"n": 2, "strategy": "greedy"}, "gives the same answer each time. Set n to 1", "not_supported"),
        ({"logprobs": 21}, "logprobs must be a whole number from 0 to 20", "bad_setting"),
        ({"model": "parrot", "logprobs": 1}, "choose a model that runs here", "not_supported"),
        ({"messages": "word " * 3000}, r"needs \d+ tokens", "too_long"),
        ({"messages": "word " * 3000, "n": 2, "strategy": "sampling"}, r"needs \d+ tokens", "too_long"),
        ({"messages": [{"role": "user", "content": "x" * 40_000}]}, "at most 32000 characters", "too_long"),
        ({"messages": [{"role": "owl", "content": "x"}]}, "role of a message", "bad_messages"),
        ({"messages": [7]}, "Each message must be an object", "bad_messages"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "no question to answer", "bad_messages"),
    ],
    ids=str,
)
def test_an_error_has_its_sentence_and_its_code(client, bad, sentence, code):
    with pytest.raises(AppError, match=sentence) as refused:
        client.predict(**{"messages": "hi"} | ASKED | bad)
    assert refused.value.title == code and code in CODES


@pytest.mark.parametrize(
    ("bad", "told", "valid"),
    [
        ({"temperature": 99}, (422, "bad_setting", "temperature"), {"type": "number", "minimum": 0, "maximum": 2}),
        ({"dola_layers": "all"}, (422, "bad_setting", "dola_layers"), {"enum": ["low", "high"]}),
        ({"strategy": "beam"}, (422, "bad_setting", "strategy"), list(STRATEGIES)),
        ({"model": "parot"}, (404, "no_such_model", "model"), None),
        ({"temprature": 1}, (422, "bad_request", None), None),
        ({"messages": ""}, (422, "bad_request", None), None),
    ],
    ids=str,
)
def test_what_is_known_before_is_told_over_http_as_data(http, bad, told, valid):
    answer = http.post("/gradio_api/call/v2/generate", json={"messages": "hi"} | bad)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == told
    assert error["message"] == answer.json()["detail"]
    assert error["valid"] == valid or bad.get("model")


@pytest.mark.parametrize("endpoint", ["/generate", "/chat"])
def test_a_cancelled_call_ends_with_what_there_is(inside, endpoint):
    client = Client(inside.url, verbose=False)
    job = client.submit(STORY, model=inside.endless, max_new_tokens=4000, api_name=endpoint)
    until(lambda: any(map(text_of, job.outputs())))
    job.cancel()
    result = job.result()
    assert text_of(result) == text_of(job.outputs()[-1]) != ""
    assert endpoint == "/chat" or (result["finish_reason"], result["usage"]["completion_tokens"] > 0) == (
        "cancelled",
        True,
    )
    assert not turn.running()


def text_of(output):
    return output["text"] if isinstance(output, dict) else output


def test_several_answers_that_are_cancelled_end_with_what_there_is(inside):
    job = Client(inside.url, verbose=False).submit(
        STORY, model=inside.endless, n=2, max_new_tokens=4000, api_name="/generate"
    )
    until(lambda: any(text_of(each) for each in job.outputs()))
    job.cancel()
    assert {each["finish_reason"] for each in job.result()["choices"]} == {"cancelled"}
    until(lambda: not turn.running())


def test_who_is_cancelled_in_the_line_gets_an_end_without_a_text(inside, client, one_place):
    first = client.submit(STORY, model=inside.endless, max_new_tokens=4000, api_name="/generate")
    until(lambda: any(map(text_of, first.outputs())))
    second = Client(inside.url, verbose=False).submit(STORY, model=inside.endless, api_name="/generate")
    until(lambda: any("number 1 in the line" in each["status"] for each in second.outputs()))
    second.cancel()
    result = second.result()
    assert (result["text"], result["finish_reason"], result["timings"]["waiting"]) == ("", "cancelled", None)
    first.cancel()
    until(lambda: not turn.running())


def test_calls_at_once_get_their_own_answers(inside):
    results = {}

    def ask(seed):
        results[seed] = Client(inside.url, verbose=False).predict(STORY, **ASKED, seed=seed, max_new_tokens=12)["text"]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    alone = {
        seed: Client(inside.url, verbose=False).predict(STORY, **ASKED, seed=seed, max_new_tokens=12)["text"]
        for seed in results
    }
    assert results == alone
