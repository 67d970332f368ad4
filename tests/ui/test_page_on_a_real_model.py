"""The page and the API of the whole program with a real model, SmolLM2-135M-Instruct."""

import re

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from parley.strategies import STRATEGIES
from tests.browser import QUIET, Visitor
from tests.conftest import Space

pytest_plugins = ["tests.browser"]
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def real_space(real_model):
    running = Space(MODEL_IDS=f"SmolLM2={real_model}")
    yield running
    running.close()


def test_a_visitor_talks_with_it_and_goes_on(chromium, real_space):
    visitor = Visitor(chromium, real_space.url)
    visitor.limit(24)
    visitor.choose("strategy", "Greedy")
    visitor.ask(QUESTION)
    expect(visitor.answer).to_contain_text("Paris")
    expect(visitor.quiet).to_have_text(QUIET)
    expect(visitor.setting("thinking")).to_be_hidden()
    visitor.ask("And of Germany?")
    expect(visitor.answer).to_contain_text("Berlin")
    visitor.quiet.click()
    expect(visitor.folded.last.locator("ul")).to_contain_text(re.compile(r"Prompt: \d+ tokens, \d+ of them cached"))
    visitor.close()
    assert visitor.faults == []


@pytest.mark.parametrize("strategy", [name for name, row in STRATEGIES.items() if not row.drafts])
def test_a_program_asks_it_with_every_strategy(real_space, strategy):
    client = Client(real_space.url, verbose=False)
    chosen = {"strategy": strategy, "seed": 4, "temperature": 0.5, "max_new_tokens": 12}
    said = client.predict(QUESTION, messages=[], **chosen, api_name="/chat")
    assert len(said.split()) > 3
    if not STRATEGIES[strategy].samples and strategy != "contrastive":
        assert "Paris" in said
