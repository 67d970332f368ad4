"""The chat never runs out: what is left of the GPU time is used, and then the CPU of the Space answers."""

import re

import pytest
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.conftest import until
from tests.zerogpu.conftest import SMALL, ZeroGpuSpace
from tests.zerogpu.device_api import Refusal
from tests.zerogpu.faults import TOKEN

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

LEFT = 12  # seconds
ON_THE_CPU = re.compile(r"· 8 tokens · .*Qwen3 0\.6B answered on the CPU, which spends no GPU time\.")
FORKS = 4


@pytest.fixture(scope="module")
def zero(tmp_path_factory):
    running = ZeroGpuSpace(tmp_path_factory.mktemp("zerogpu"), ZEROGPU_SIZE="")
    yield running
    running.close()


@pytest.fixture
def visitor(chromium, zero):
    chromium.set_extra_http_headers({"x-ip-token": TOKEN})
    visitor = Visitor(chromium, zero.url)
    yield visitor
    visitor.close()
    chromium.set_extra_http_headers({})
    until(lambda: not zero.api.busy)
    assert visitor.faults == []


def refuse(zero, left):
    headers = (("X-Approve-Result", "quota-exceeded"),)
    zero.api.refusals.append(Refusal(429, {"left": left, "wait": 3600}, headers))


def asked(zero):
    return [int(query["durationSeconds"]) for query in zero.api.asked("/schedule")]


def go_on(visitor):
    visitor.page.get_by_role("button", name="Go on with Qwen3 0.6B on the CPU").click()


def test_a_worker_is_forked_while_a_model_answers_on_the_cpu_and_both_finish(zero):
    """The first worker, and more. A random model may end an answer early by chance; then it is asked anew."""
    client, long, forks = zero.client(), None, 0
    for seed in range(100, 112):
        if long is None or long.done():
            long = client.submit(
                "Hello!",
                model=SMALL,
                strategy="sampling",
                seed=seed,
                max_new_tokens=4000,
                messages=[],
                api_name="/chat",
            )
            until(lambda asked=long: asked.outputs() or asked.done())
        assert client.predict("Tell me a story about an owl.", messages=[], max_new_tokens=8, api_name="/chat")
        forks += not long.done()
        until(lambda: not zero.api.busy)
        zero.api.kill_workers()
        if forks == FORKS:
            break
    assert forks == FORKS
    long.cancel()
    assert len(client.predict("Hello!", model=SMALL, messages=[], max_new_tokens=4, api_name="/chat")) > 0


def test_the_seconds_that_are_left_are_asked_for_once_and_the_answer_can_be_continued(zero, visitor):
    visitor.choose("model", "endless")
    visitor.limit(4000)
    refuse(zero, LEFT)
    before = len(asked(zero))
    visitor.ask("hello")
    first, second = asked(zero)[before:]
    assert first > second == LEFT
    expect(visitor.quiet).to_have_text(re.compile(rf"ran out of time · You had {LEFT} s of GPU time left\."))
    expect(visitor.page.get_by_role("button", name="Continue")).to_be_visible()


def test_what_is_refused_again_or_too_little_is_said_and_not_asked_for_again(zero, visitor):
    for lefts in ((LEFT, LEFT - 1), (9,)):
        before = len(asked(zero))
        for left in lefts:
            refuse(zero, left)
        visitor.ask("Tell me a story about an owl.")
        expect(visitor.error).to_contain_text(f"you have {lefts[-1]} s left.")
        assert len(asked(zero)) == before + len(lefts)
        visitor.press("Undo")
        expect(visitor.questions).to_have_count(0)


def test_when_no_gpu_time_is_left_one_click_goes_on_with_the_same_conversation_on_the_cpu(zero, visitor):
    visitor.limit(8)
    visitor.ask("Hello, who are you?")
    expect(visitor.quiet).to_have_text(re.compile("reached max new tokens|ran out of time"))
    begun = visitor.answer.inner_text().strip()
    refuse(zero, 0)
    visitor.page.get_by_role("button", name="Continue").click()
    expect(visitor.error).to_contain_text("Your GPU time is used up.")
    before = len(asked(zero))
    go_on(visitor)  # with the answer that was begun
    expect(visitor.setting("model").locator("input")).to_have_value("Qwen3 0.6B")
    visitor.until_free()
    visitor.limit(8)  # the model has its own
    visitor.ask("and then?")
    expect(visitor.quiet).to_have_text(ON_THE_CPU)
    expect(visitor.questions).to_have_text(["Hello, who are you?", "and then?"])
    answers = visitor.page.locator("#chat .bot-row:not(:has(.thought-group)) .prose")
    assert answers.first.inner_text().strip().startswith(begun)
    assert len(asked(zero)) == before


def test_a_question_that_got_no_gpu_is_answered_with_one_click(zero, visitor):
    refuse(zero, 0)
    visitor.limit(8)
    visitor.ask("Hello, who are you?")
    go_on(visitor)
    visitor.until_free()
    expect(visitor.quiet).to_have_text(re.compile("answered on the CPU"))
    expect(visitor.questions).to_have_text("Hello, who are you?")
    expect(visitor.error).to_have_count(0)


def test_a_program_is_told_the_model_that_needs_no_gpu(zero):
    refuse(zero, 0)
    with pytest.raises(AppError, match=f"used up.*Or name the model '{SMALL}', which needs no GPU"):
        zero.client(TOKEN).predict("Hello!", api_name="/chat")
