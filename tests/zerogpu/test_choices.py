"""Why the tokens of an answer were chosen, where its model runs on ZeroGPU: in one call, after a click."""

import re

import pytest
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.zerogpu.conftest import BIRD
from tests.zerogpu.device_api import Refusal

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

ON_GPU = {"model": BIRD, "strategy": "greedy", "max_new_tokens": 12}


def test_a_program_gets_them_in_one_call(zero, client):
    made = client.predict([{"role": "user", "content": "Hello!"}], **ON_GPU, logprobs=None, api_name="/generate")
    asked = len(zero.api.asked("/schedule"))
    messages = [{"role": "user", "content": "Hello!"}]
    scores = client.predict(messages, made["text"], settings=ON_GPU, api_name="/tokens")
    assert len(zero.api.asked("/schedule")) == asked + 1
    assert "".join(each["text"] for each in scores) == made["text"]
    assert all(each["logprob"] < 0 and each["candidates"] for each in scores)


def test_without_a_gpu_it_is_one_sentence(zero, client):
    zero.api.refusals.append(Refusal(429, {"left": 2, "wait": 3600}, (("X-Approve-Result", "quota-exceeded"),)))
    with pytest.raises(AppError, match="GPU"):
        client.predict([{"role": "user", "content": "Hello!"}], "Hello", settings=ON_GPU, api_name="/tokens")


def test_the_page_names_the_seconds_and_waits_for_a_click(zero, chromium):
    visitor = Visitor(chromium, f"{zero.url}/?model={BIRD}&max_new_tokens=12&seed=1")
    visitor.ask("Hello!")
    asked = len(zero.api.asked("/schedule"))
    visitor.page.get_by_role("button", name="Show choices").click()
    wait = visitor.page.locator(".view .wait")
    expect(wait).to_have_text(re.compile(r"asks for \d+ s of your GPU time\. Read it"))
    assert len(zero.api.asked("/schedule")) == asked
    visitor.page.get_by_role("button", name="Read it").click()
    expect(visitor.page.locator(".token-view .tokens").last.locator(".token").first).to_be_visible()
    assert len(zero.api.asked("/schedule")) == asked + 1
    visitor.close()
    assert visitor.faults == []


def test_a_program_looks_at_the_next_token_in_one_call(zero, client):
    asked = len(zero.api.asked("/schedule"))
    found = client.predict([{"role": "user", "content": "Hello!"}], settings=ON_GPU, api_name="/next")
    assert len(zero.api.asked("/schedule")) == asked + 1
    assert found["score"]["candidates"] and found["ids"] == []


def test_the_next_token_is_looked_at_after_a_click(zero, chromium):
    visitor = Visitor(chromium, f"{zero.url}/?model={BIRD}&seed=1", width=700, height=500)
    visitor.box.fill("Hello!")
    asked = len(zero.api.asked("/schedule"))
    visitor.press("Next token")
    said, bars = visitor.page.locator(".next-token .said"), visitor.page.locator(".next-view .bars > li")
    expect(said).to_have_text(re.compile(r"asks for \d+ s of your GPU time\. Look"))
    assert len(zero.api.asked("/schedule")) == asked and bars.count() == 0
    visitor.press("Look")
    expect(bars.first).to_be_visible()
    expect(said).to_have_text("")
    visitor.press("Step")
    expect(said).to_have_text(re.compile("asks for"))
    visitor.press("Look")
    expect(visitor.page.locator(".so-far .token")).to_have_count(1)
    assert len(zero.api.asked("/schedule")) == asked + 2
    visitor.close()
    assert visitor.faults == []
