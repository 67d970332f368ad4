"""Programs on ZeroGPU: the quota that a turn spends is the caller's, and several answers take one call."""

import openai
import pytest
from gradio_client.exceptions import AppError

from tests.conftest import until
from tests.zerogpu.conftest import BIRD, ZeroGpuSpace
from tests.zerogpu.device_api import Refusal
from tests.zerogpu.faults import TOKEN

pytestmark = pytest.mark.slow

KEY = "the-key-of-the-owner"
QUESTION = [{"role": "user", "content": "Tell me a story about an owl."}]
ON_GPU = {"model": BIRD, "max_tokens": 16, "seed": 3}
NOTHING_LEFT = Refusal(429, {"left": 2, "wait": 3600}, (("X-Approve-Result", "quota-exceeded"),))


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    running = ZeroGpuSpace(tmp_path_factory.mktemp("zerogpu"), MAX_GPU_SECONDS="40", API_KEY=KEY)
    yield running
    running.close()


@pytest.fixture
def chat(zero):
    """The proxy of the Hub makes X-IP-Token of the token in Authorization."""
    headers = {"X-API-Key": KEY, "X-IP-Token": TOKEN}
    with openai.OpenAI(base_url=f"{zero.url}/v1", api_key="hf_x", default_headers=headers, max_retries=0) as client:
        yield client.chat.completions.create
    until(lambda: not zero.api.busy and not zero.api.line)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_quota_is_the_callers(zero, chat, stream):
    asked = len(zero.api.asked("/schedule"))
    made = chat(messages=QUESTION, stream=stream, **ON_GPU)
    text = "".join(each.choices[0].delta.content or "" for each in made) if stream else made.choices[0].message.content
    assert text
    (schedule,) = zero.api.asked("/schedule")[asked:]
    assert schedule["token"] == TOKEN


def test_several_answers_take_one_call(zero, chat):
    asked = len(zero.api.asked("/schedule"))
    texts = [each.message.content for each in chat(messages=QUESTION, n=3, **ON_GPU).choices]
    assert len(zero.api.asked("/schedule")) == asked + 1
    assert texts[0] == chat(messages=QUESTION, **ON_GPU).choices[0].message.content


@pytest.mark.parametrize("n", [1, 2])
def test_without_quota_the_error_has_a_code_and_names_a_model_that_needs_none(zero, chat, n):
    zero.api.refusals.append(NOTHING_LEFT)
    with pytest.raises(openai.RateLimitError) as refused:
        chat(messages=QUESTION, n=n, **ON_GPU)
    assert refused.value.code == "quota"
    zero.api.refusals.append(NOTHING_LEFT)
    with pytest.raises(AppError) as refused:
        zero.client(TOKEN).predict(QUESTION, model=BIRD, n=n, api_name="/generate")
    assert refused.value.title == "quota"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_probabilities_of_all_answers_take_one_more_call_of_the_callers(zero, chat, n, stream):
    asked = len(zero.api.asked("/schedule"))
    made = chat(messages=QUESTION, n=n, logprobs=True, top_logprobs=2, stream=stream, **ON_GPU)
    texts, told = [""] * n, [b""] * n
    for choice in (choice for chunk in (made if stream else [made]) for choice in chunk.choices):
        texts[choice.index] += (choice.delta if stream else choice.message).content or ""
        for token in choice.logprobs.content if choice.logprobs else ():
            told[choice.index] += bytes(token.bytes)
            assert token.logprob <= 0 and len(token.top_logprobs) == 2
    assert [each.decode() for each in told] == texts and all(texts)
    answered, read = zero.api.asked("/schedule")[asked:]
    assert answered["token"] == read["token"] == TOKEN


def test_generate_tells_the_probabilities_of_the_hypotheses_of_a_search(zero):
    asked = len(zero.api.asked("/schedule"))
    given = {"model": BIRD, "strategy": "beams", "max_new_tokens": 12, "n": 2, "logprobs": 1}
    choices = zero.client(TOKEN).predict(QUESTION, **given, api_name="/generate")["choices"]
    assert len(zero.api.asked("/schedule")) == asked + 2
    assert {each["token"] for each in zero.api.asked("/schedule")[asked:]} == {TOKEN}
    assert len({each["text"] for each in choices}) == 2
    for each in choices:
        assert b"".join(bytes(token["bytes"]) for token in each["logprobs"]).decode() == each["text"]


def test_the_probabilities_of_a_prompt_are_not_told_there(zero, chat):
    headers = {"X-API-Key": KEY, "X-IP-Token": TOKEN}
    with (
        openai.OpenAI(base_url=f"{zero.url}/v1", api_key="hf_x", default_headers=headers, max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="Choose one that runs on the CPU") as refused,
    ):
        client.completions.create(model=BIRD, prompt="The owl", echo=True, logprobs=1, max_tokens=0)
    assert refused.value.code == "not_supported"


def test_a_model_on_the_cpu_spends_no_quota(zero, chat):
    asked = len(zero.api.asked("/schedule"))
    assert chat(messages=QUESTION, model="budgie", max_tokens=4, logprobs=True).choices[0].logprobs.content
    assert len(zero.api.asked("/schedule")) == asked


def test_the_owners_key_is_not_in_authorization(zero):
    with (
        openai.OpenAI(base_url=f"{zero.url}/v1", api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="X-API-Key"),
    ):
        client.models.list()
