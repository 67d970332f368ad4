"""How full the context is, told before sending."""

import re

import pytest
from playwright.sync_api import expect

from parley.messages import build_messages
from parley.models import registry
from parley.serving import turn
from parley.serving.model_pool import ModelPool
from parley.settings import Settings

pytest_plugins = ["tests.browser"]

USE = re.compile(r"([\d,]+) of ([\d,]+) tokens")


def turns(number):
    return [m for i in range(number) for m in ({"role": "user", "content": f"Question {i}? " * 30}, OF_COURSE)]


OF_COURSE = {"role": "assistant", "content": "Of course."}


def test_it_counts_what_the_prompt_will_have_and_the_turns_that_will_be_dropped(budgie):
    from parley.generation.prompt import render_prompt

    settings = Settings(model="budgie", max_new_tokens=64)
    for number in (1, 40):
        messages = build_messages(turns(number), "And now?", "Be brief.")
        use, prompt = budgie.context_use(messages, settings), render_prompt(budgie.loaded, messages, settings)
        assert use.dropped == prompt.dropped and use.context == budgie.loaded.context
        assert use.limit == use.context - 64
        assert use.tokens == prompt.length if number == 1 else prompt.length <= use.limit < use.tokens
    assert use.dropped > 1


def test_nothing_is_loaded_to_count(monkeypatch):
    monkeypatch.setenv("MODEL_IDS", "budgie")
    pool = ModelPool()
    monkeypatch.setattr(turn, "POOL", pool)
    assert turn.context_use(build_messages([], "Hello"), Settings(model=registry.default().name)) is None
    assert pool.loaded == {}


@pytest.mark.slow
def test_the_gauge_tells_the_use_of_history_and_draft_and_greys_what_will_not_be_read(visitor):
    gauge = visitor.page.locator("#gauge")
    visitor.limit(8)
    visitor.ask("Hello, who are you?")
    expect(gauge).to_have_text(USE)
    history = gauge.inner_text()
    draft = "What is top-p sampling?"
    visitor.box.fill(draft)
    expect(gauge).not_to_have_text(history)
    told = USE.match(gauge.inner_text())[1]
    visitor.box.press("Enter")
    expect(visitor.questions).to_have_count(2)
    visitor.until_free()
    visitor.quiet.click()
    expect(visitor.folded.last.locator("li").first).to_contain_text(f"Prompt: {told} tokens")
    visitor.box.fill("word " * 1900)  # still fits alone, but not with what was said before
    expect(gauge).to_contain_text("not read")
    unread = visitor.page.locator("#chat .message-row[data-unread]")
    expect(unread.first).to_have_css("opacity", "0.45")
    expect(visitor.questions.first).to_have_attribute("data-unread", "")
    visitor.box.fill("")
    expect(unread).to_have_count(0)
