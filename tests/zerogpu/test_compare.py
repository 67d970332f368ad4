"""A comparison on ZeroGPU: one call serves all columns that need a GPU, and the others answer beside it."""

import re

import pytest
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.conftest import until
from tests.zerogpu.conftest import BIRD
from tests.zerogpu.device_api import Refusal
from tests.zerogpu.faults import TOKEN

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

QUESTION = "Tell me a story about an owl."
ON_GPU = {"model": BIRD, "strategy": "greedy", "max_new_tokens": 24}


def test_one_call_serves_all_columns(zero, client):
    alone = client.predict(QUESTION, messages=[], **ON_GPU, api_name="/chat")
    asked = len(zero.api.asked("/schedule"))
    columns = [ON_GPU, ON_GPU | {"strategy": "sampling", "seed": 3}, ON_GPU | {"strategy": "beams"}]
    states = list(client.submit(QUESTION, [*columns, {"model": "parrot"}], api_name="/compare"))
    assert len(zero.api.asked("/schedule")) == asked + 1
    last = states[-1]
    assert [each["error"] for each in last["columns"]] == [""] * 4
    assert last["columns"][0]["text"] == alone and last["columns"][3]["text"] == QUESTION
    assert last["gpu_seconds"] == int(zero.api.asked("/schedule")[-1]["durationSeconds"])
    assert all(each["figures"]["logprob"] < 0 for each in last["columns"][:3])
    together = [sum(bool(each["text"]) and not each["finish"] for each in state["columns"][:3]) for state in states]
    assert max(together) > 1, "they run at the same time"


def test_what_is_known_before_is_refused_before(zero, client):
    asked = len(zero.api.asked("/schedule"))
    with pytest.raises(AppError, match="Column 1: Seed must be"):
        client.predict(QUESTION, [ON_GPU | {"seed": -1}, ON_GPU], api_name="/compare")
    assert len(zero.api.asked("/schedule")) == asked


def test_without_a_gpu_its_columns_say_why_and_the_others_answer(zero, client):
    zero.api.refusals.append(Refusal(429, {"left": 2, "wait": 3600}, (("X-Approve-Result", "quota-exceeded"),)))
    last = client.predict(QUESTION, [ON_GPU, ON_GPU | {"seed": 1}, {"model": "parrot"}], api_name="/compare")
    first, second, parrot = last["columns"]
    assert first["error"] == second["error"] and "GPU" in first["error"] and not first["text"]
    assert parrot["text"] == QUESTION and not parrot["error"]


def test_fewer_seconds_are_asked_for_where_the_visitor_has_no_more(zero):
    client = zero.client(TOKEN)
    zero.api.refusals.append(Refusal(429, {"left": 20, "wait": 3600}, (("X-Approve-Result", "quota-exceeded"),)))
    last = client.predict(QUESTION, [ON_GPU, ON_GPU | {"seed": 1}], api_name="/compare")
    assert last["notices"] == ["You had 10 s of GPU time left."]  # the size "xlarge" counts twice
    assert last["gpu_seconds"] == 10
    assert all(each["text"] for each in last["columns"])


def test_the_page_names_the_seconds_and_waits_for_a_click(zero, chromium):
    visitor = Visitor(
        chromium, f"{zero.url}/?view=compare&prompt=Hello&run=1&model={BIRD}&max_new_tokens=12&1.seed=1&2.seed=2"
    )
    says, button = visitor.page.locator("#compare .says"), visitor.page.locator("#compare .go")
    expect(says).to_have_text(re.compile(r"It asks for \d+ s of your GPU time\."))
    expect(visitor.page.locator("#compare .text").first).to_have_text("")
    asked = len(zero.api.asked("/schedule"))
    button.click()
    expect(visitor.page.locator("#compare .announced")).to_have_text("All columns have ended.")
    expect(says).to_have_text(re.compile(r"It asked for \d+ s of GPU time\."))
    assert len(zero.api.asked("/schedule")) == asked + 1
    visitor.close()
    assert visitor.faults == []


def test_one_column_is_stopped_across_the_process_line(zero, chromium):
    talkers = f"model={zero.endless.name}&max_new_tokens=4000&1.seed=1&2.seed=2"
    visitor = Visitor(chromium, f"{zero.url}/?view=compare&prompt=Hello&{talkers}")
    columns, button = visitor.page.locator("#compare .column"), visitor.page.locator("#compare .go")
    expect(visitor.page.locator("#compare .says")).to_contain_text("GPU time")
    button.click()
    for each in columns.all():
        expect(each.locator(".text")).to_have_text(re.compile(r"\w{2,}"))
    columns.first.locator(".stop").click()
    expect(columns.first.locator(".notices")).to_have_text("stopped")
    expect(columns.last.locator(".stop")).to_be_visible()
    button.click()
    expect(columns.last.locator(".notices")).to_have_text("stopped")
    expect(visitor.page.locator("#compare .keep:visible")).to_have_count(2)
    visitor.close()
    assert visitor.faults == []


def test_a_comparison_that_is_cancelled_frees_the_gpu(zero, client):
    talker = {"model": zero.endless.name, "max_new_tokens": 4000}
    job = client.submit(QUESTION, [talker, talker | {"seed": 1}], api_name="/compare")
    until(lambda: job.outputs() and all(each["text"] for each in job.outputs()[-1]["columns"]))
    job.cancel()
    until(lambda: not zero.api.busy)
