"""/v1/chat/completions, as the `openai` package asks it."""

import asyncio
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest
from gradio_client import Client

from parley.api.openai import doors
from parley.errors import CODES
from parley.events import HEARTBEAT
from parley.serving import turn
from tests.conftest import until

QUESTION = [{"role": "user", "content": "Hello, who are you?"}]
STORY = [{"role": "user", "content": "Tell me a story about an owl."}]
EMOJI = [{"role": "user", "content": "Repeat after me: 🦉🏳️‍🌈 über"}]


@pytest.fixture
def chat(openai_client):
    def ask(messages=QUESTION, model="budgie", **asked):
        return openai_client.chat.completions.create(model=model, messages=messages, **asked)

    return ask


def whole(stream):
    """A stream as what a client makes of it: texts, thoughts, the finish reasons, all chunks."""
    chunks = list(stream)
    choices = [each for chunk in chunks for each in chunk.choices]
    text = "".join(each.delta.content or "" for each in choices)
    thought = "".join(getattr(each.delta, "reasoning_content", None) or "" for each in choices)
    return text, thought, [each.finish_reason for each in choices if each.finish_reason], chunks


def test_a_conversation_is_answered_and_all_is_told(chat):
    answer = chat(max_tokens=5, seed=7)
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.created > 1e9
    assert answer.system_fingerprint.startswith("fp_")
    assert chat(seed=7, max_completion_tokens=5).choices[0].message.content == choice.message.content


def test_the_door_makes_no_difference_to_the_text(inside, chat):
    asked = {"seed": 7, "temperature": 0.9, "top_p": 0.8}
    one = Client(inside.url, verbose=False).predict(QUESTION, model="budgie", **asked, api_name="/generate")["text"]
    assert one == chat(**asked).choices[0].message.content == whole(chat(**asked, stream=True))[0]


def test_a_stream_has_the_form_that_clients_expect(chat):
    text, _, reasons, chunks = whole(chat(stream=True, seed=3, stream_options={"include_usage": True}))
    assert text == chat(seed=3).choices[0].message.content and reasons == ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {each.id for each in chunks} == {chunks[0].id}
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 1
    assert all(each.usage is None for each in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_without_include_usage_no_chunk_has_one(chat):
    assert all(each.usage is None and each.choices for each in whole(chat(stream=True, max_tokens=3))[3])


GROUPS = {"strategy": "diverse_beams", "beam_groups": 4, "beams_per_group": 1}


@pytest.mark.parametrize("asked", [{}, GROUPS, {"strategy": "prompt_lookup"}], ids=str)
def test_every_strategy_streams_what_it_answers(chat, asked):
    extra = {"strategy": "greedy", "max_new_tokens": 24} | asked
    assert whole(chat(stream=True, extra_body=extra))[0] == chat(extra_body=extra).choices[0].message.content


def test_a_thought_is_reasoning_content(chat):
    asked = {"messages": [{"role": "user", "content": "What is 3 plus 4?"}], "temperature": 0}
    asked["extra_body"] = {"thinking": True}
    message = chat(**asked).choices[0].message
    text, thought, _, _ = whole(chat(**asked, stream=True))
    assert (text, thought) == (message.content, message.reasoning_content)
    assert thought and "<think>" not in text + thought


def test_several_answers_are_as_their_seeds_say(chat):
    answer = chat(STORY, n=3, seed=5, max_tokens=8, temperature=1.0)
    texts = [each.message.content for each in answer.choices]
    assert texts[1] == chat(STORY, seed=6, max_tokens=8, temperature=1.0).choices[0].message.content
    assert [each.index for each in answer.choices] == [0, 1, 2] and answer.usage.completion_tokens == 24
    chunks = whole(chat(STORY, n=3, seed=5, max_tokens=8, temperature=1.0, stream=True))[3]
    streamed = ["", "", ""]
    for each in (each for chunk in chunks for each in chunk.choices):
        streamed[each.index] += each.delta.content or ""
    assert streamed == texts


@pytest.mark.parametrize("messages", [QUESTION, EMOJI], ids=["plain", "emoji"])
@pytest.mark.parametrize("extra", [{}, {"logprobs_mode": "processed_logprobs", "top_k": 3}], ids=["raw", "processed"])
def test_the_bytes_of_the_tokens_are_the_answer(chat, messages, extra):
    asked = {"logprobs": True, "top_logprobs": 4, "seed": 1, "max_tokens": 24}
    asked["extra_body"] = {"temperature": 1.3} | extra
    (choice,) = chat(messages, **asked).choices
    tokens = choice.logprobs.content
    assert bytes(byte for each in tokens for byte in each.bytes).decode() == choice.message.content != ""
    for each in tokens:
        top = [other.logprob for other in each.top_logprobs]
        assert len(top) == 4 and -10_000 < each.logprob <= 0 and top == sorted(top, reverse=True)
        assert "top_k" not in extra or sum(logprob > -9999 for logprob in top) <= 3
    text, _, _, chunks = whole(chat(messages, **asked, stream=True))
    told = [choice.logprobs.content for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert text == choice.message.content
    assert [each.logprob for content in told for each in content] == [each.logprob for each in tokens]


@pytest.mark.parametrize("extra", [{"temperature": 1.0}, {"strategy": "beams"}], ids=str)
def test_each_of_several_streamed_answers_has_its_tokens_when_it_ends_before_the_others(chat, extra):
    texts, told, over = [""] * 3, [b""] * 3, [False] * 3
    for chunk in chat(STORY, n=3, seed=3, logprobs=True, stream=True, max_tokens=24, extra_body=extra):
        for choice in chunk.choices:
            assert not over[choice.index]
            texts[choice.index] += choice.delta.content or ""
            for token in choice.logprobs.content if choice.logprobs else ():
                told[choice.index] += bytes(token.bytes)
            over[choice.index] = bool(choice.finish_reason)
    assert all(over) and all(texts) and [each.decode() for each in told] == texts


def test_stop_may_be_a_text_or_a_list_and_is_left_out(chat):
    (one,) = chat(stop="tiny", temperature=0).choices
    (other,) = chat(stop=["nothing", "tiny"], temperature=0).choices
    assert one.finish_reason == "stop" and "tiny" not in one.message.content == other.message.content


def test_what_asks_for_nothing_is_taken(chat):
    nothing = {"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "response_format": {"type": "text"}}
    ignored = {"user": "x", "store": False, "metadata": {}, "service_tier": "auto", "tool_choice": "auto", "n": 1}
    assert chat(**nothing, **ignored, max_tokens=2).choices[0].message.content


def test_any_seed_is_a_seed(chat):
    assert chat(seed=-1, max_tokens=4).choices == chat(seed=2**32 - 1, max_tokens=4).choices


def test_developer_is_system(chat):
    texts = {
        chat([{"role": role, "content": "Answer like a pirate."}, *QUESTION], seed=2).choices[0].message.content
        for role in ("developer", "system")
    }
    assert len(texts) == 1


def test_the_newer_names_go_together(chat):
    """Public case 25: aichat 1146, llama-cpp-python 1907."""
    asked = {"seed": 2, "max_completion_tokens": 5}
    made = chat([{"role": "developer", "content": "Answer like a pirate."}, *QUESTION], **asked)
    assert made.choices[0].finish_reason == "length" and made.usage.completion_tokens == 5
    assert made.usage.prompt_tokens > chat(**asked).usage.prompt_tokens


def test_the_cache_is_found_by_its_key_alone(chat):
    asked = {"temperature": 0, "max_tokens": 4}
    keyed = [chat(STORY, prompt_cache_key="one", **asked) for _ in range(2)]
    cached = [each.usage.prompt_tokens_details.cached_tokens for each in (*keyed, chat(STORY, **asked))]
    assert cached[0] == cached[2] == 0 < cached[1]
    assert keyed[0].choices[0].message == keyed[1].choices[0].message


SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["owl", "tea"]}, "lamps": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["kind", "lamps"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_follows_the_schema_of_response_format(chat, stream):
    wanted = {"type": "json_schema", "json_schema": {"name": "found", "schema": SCHEMA, "strict": True}}
    made = chat(response_format=wanted, max_tokens=60, stream=stream)
    if stream:
        text = "".join(choice.delta.content or "" for chunk in made for choice in chunk.choices)
    else:
        text = made.choices[0].message.content
    found = json.loads(text)
    assert found["kind"] in ("owl", "tea") and 0 <= found["lamps"] <= 99


def test_json_object_is_an_object(chat):
    made = chat(response_format={"type": "json_object"}, max_tokens=300, seed=3, extra_body={"mirostat_tau": 1.0})
    text = made.choices[0].message.content
    assert text.startswith("{") and (made.choices[0].finish_reason == "length" or isinstance(json.loads(text), dict))


@pytest.mark.parametrize(
    ("bad", "code", "sentence"),
    [
        ({"temperature": 9}, "bad_setting", "Temperature must be a number from 0.0 to 2.0"),
        ({"temperature": "hot"}, "bad_setting", "temperature must be a number; hot is not."),
        ({"max_tokens": 0}, "bad_setting", "Max new tokens must be"),
        ({"n": 99}, "bad_setting", "n must be a whole number from 1 to 8"),
        ({"n": 2, "temperature": 0}, "not_supported", "the same answer each time"),
        ({"top_logprobs": 3}, "bad_setting", "Set logprobs to true"),
        ({"extra_body": {"temprature": 1}}, "bad_setting", "Did you mean 'temperature'?"),
        ({"extra_body": {"strategy": "beam"}}, "bad_setting", "Did you mean 'beams'?"),
        ({"extra_body": {"messages": "hi"}}, "bad_setting", "messages must be a list"),
        ({"messages": []}, "bad_messages", "There is no question to answer"),
        ({"messages": [{"role": "owl", "content": "hi"}]}, "bad_messages", "The role"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "too_long", "tokens"),
        ({"model": "budgy"}, "no_such_model", "Did you mean 'budgie'?"),
        ({"presence_penalty": 3}, "bad_setting", "presence_penalty"),
        ({"logit_bias": {"5": 101}}, "bad_setting", "Logit bias must be a JSON object"),
        ({"response_format": {"type": "json_schema"}}, "bad_setting", "must have the schema"),
        ({"response_format": {"type": "xml"}}, "bad_setting", "must be one of text, json_object, json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objct"}}}},
            "bad_setting",
            "This JSON schema cannot be used: Invalid type: objct",
        ),
        ({"tool_choice": "required"}, "bad_setting", "asks for a tool that is not there"),
        ({"tool_choice": "maybe"}, "bad_setting", "auto, none, required"),
        ({"logprobs": True, "model": "parrot"}, "not_supported", "tells no probabilities"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_error_is_data_with_the_right_status(chat, stream, bad, code, sentence):
    with pytest.raises(openai.APIStatusError) as refused:
        chat(**{"stream": stream} | bad)
    assert (refused.value.code, refused.value.status_code) == (code, CODES[code].status)
    assert sentence in refused.value.body["message"]


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [(b"{", 400, "no valid JSON"), (b"[1]", 400, "must be a JSON object"), (b'{"model": NaN}', 422, "no number NaN")],
)
def test_a_damaged_body_gets_one_sentence(http, content, status, sentence):
    answer = http.post("/v1/chat/completions", content=content)
    assert answer.status_code == status and sentence in answer.json()["error"]["message"]


def test_a_bug_is_told_without_its_words(inside, chat):
    def explode(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    hook = inside.engine("budgie").loaded.model.register_forward_hook(explode)
    try:
        with pytest.raises(openai.InternalServerError) as caught:
            chat()
    finally:
        hook.remove()
    assert caught.value.code == "internal" and "CUDA" not in str(caught.value)
    assert chat(max_tokens=2).choices[0].message.content


def test_who_leaves_a_stream_ends_the_turn(inside, openai_client):
    stream = openai_client.chat.completions.create(model=inside.endless, messages=STORY, stream=True, max_tokens=4000)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    assert turn.running()
    stream.close()
    until(lambda: not turn.running())


def test_who_leaves_without_a_stream_ends_the_turn(inside, http):
    body = {"model": inside.endless, "messages": STORY, "max_tokens": 4000}
    with pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=1)
    until(lambda: not turn.running())


class Leaping:
    """In the place of the module `time`: between two looks at it more time passes than a stream may be silent."""

    def __init__(self):
        self.looks = itertools.count(step=2 * doors.KEEPALIVE_SECONDS)

    def monotonic(self):
        return next(self.looks)


def test_who_waits_in_the_line_is_kept_alive_by_comments(inside, http, openai_client, one_place, monkeypatch):
    monkeypatch.setattr(doors, "time", Leaping())
    first = openai_client.chat.completions.create(model=inside.endless, messages=STORY, stream=True, max_tokens=4000)
    until(turn.running)
    body = {"model": inside.endless, "messages": QUESTION, "max_tokens": 2, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith(":"), "a comment, and not yet an answer"
        first.close()
        rest = [line for line in lines if line]
    assert any('"finish_reason": "length"' in line for line in rest) and rest[-1] == "data: [DONE]"
    assert doors.KEEPALIVE_SECONDS + HEARTBEAT < 5
    until(lambda: not turn.running())


@pytest.mark.slow
def test_a_client_that_waits_ten_seconds_for_a_line_gets_its_stream_from_the_line(inside, openai_client, one_place):
    """Public case 27: llama.cpp 24013. By the real clock; three comments take longer than the client would wait."""
    first = openai_client.chat.completions.create(model=inside.endless, messages=STORY, stream=True, max_tokens=4000)
    until(turn.running)
    asked = {"model": inside.endless, "messages": QUESTION, "max_tokens": 2, "stream": True}
    patience = httpx2.Timeout(90, read=10)
    assert patience.read < 3 * doors.KEEPALIVE_SECONDS
    with (
        httpx2.Client(base_url=inside.url, timeout=patience) as http,
        http.stream("POST", "/v1/chat/completions", json=asked) as stream,
        ThreadPoolExecutor(1) as other,
    ):
        client = openai_client.with_options(timeout=patience)
        beside = other.submit(lambda: whole(client.chat.completions.create(**asked)))
        lines = (line for line in stream.iter_lines() if line)
        assert all(next(lines).startswith(":") for _ in range(3))
        first.close()
        rest = [line for line in lines if not line.startswith(":")]
        text, _, reasons, chunks = beside.result()
    events = [json.loads(line.removeprefix("data: ")) for line in rest[:-1]]
    assert rest[-1] == "data: [DONE]" and not any("error" in each for each in events)
    assert text and reasons == ["length"] == [events[-1]["choices"][0]["finish_reason"]]
    assert chunks[0].choices[0].delta.role == "assistant"
    until(lambda: not turn.running())


def test_many_at_once_get_their_own_answers(inside, chat):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{inside.url}/v1", api_key="none", timeout=90) as client:
            asked = {"model": "budgie", "messages": STORY, "max_tokens": 12}
            return await asyncio.gather(*(client.chat.completions.create(**asked, seed=seed) for seed in range(6)))

    together = [each.choices[0].message.content for each in asyncio.run(ask())]
    assert together == [chat(STORY, seed=seed, max_tokens=12).choices[0].message.content for seed in range(6)]


def test_the_owners_key_is_asked_for(inside, openai_client, http, monkeypatch):
    monkeypatch.setenv("API_KEY", "secret-of-the-owner")
    with pytest.raises(openai.AuthenticationError) as refused:
        openai_client.models.list()
    assert refused.value.code == "no_key" and "secret" not in str(refused.value)
    assert openai_client.with_options(api_key="secret-of-the-owner").models.list().data
    assert http.get("/v1/models", headers={"X-API-Key": "secret-of-the-owner"}).status_code == 200
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    with pytest.raises(openai.AuthenticationError, match="X-API-Key"):
        openai_client.with_options(api_key="secret-of-the-owner").models.list()
