"""Plain text: the model goes on where a text ends, without a chat template. Base models can do nothing else."""

import threading

import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from parley.engines.base import TurnRequest
from parley.errors import BadConversation, BadSetting
from parley.events import Answer
from parley.messages import Message, build_messages, build_plain_text
from parley.models import registry
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.browser import Visitor
from tests.conftest import Space, draft, engine
from tests.standins.hub import save_tiny_model

pytest_plugins = ["tests.browser"]

TEXT = "  Once upon a time, an owl\n\tand a "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random GPT-2, which has no chat template."""
    made = save_tiny_model(
        tmp_path_factory.mktemp("base") / "gpt2", "GPT2", n_positions=256, n_embd=32, n_layer=2, n_head=2
    )
    (made / "chat_template.jinja").unlink()
    return made


@pytest.fixture(scope="module")
def gpt2(folder):
    return engine(registry.find("", {"MODEL_IDS": str(folder)}))


def gone_on(engine, messages, session="", **values):
    chosen = Settings.check({"strategy": "greedy", "mode": "plain text", "max_new_tokens": 12} | values)
    request = TurnRequest.of(messages, chosen, threading.Event(), draft(), session)
    return Answer.of(engine.stream(request))


def generated(engine, text, new=12):
    """What `generate` gives after the tokens of the text."""
    model, tokenizer = engine.loaded.model, engine.loaded.tokenizer
    ids = tokenizer(text, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_greedy_search_gives_the_tokens_of_generate_after_the_same_ids(gpt2, budgie):
    assert not gpt2.loaded.chats
    for each in (gpt2, budgie):
        made = gone_on(each, build_plain_text([], TEXT))
        assert made.text == generated(each, TEXT) and not made.thought
        assert made.run_record.prompt == TEXT and made.run_record.values["mode"] == "plain text"


def test_a_text_that_is_continued_goes_on_without_a_seam(gpt2):
    whole = gone_on(gpt2, build_plain_text([], TEXT), max_new_tokens=12).text
    begun = gone_on(gpt2, build_plain_text([], TEXT), max_new_tokens=5, session="a").text
    history = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": begun}]
    rest = gone_on(gpt2, build_plain_text(history, ""), max_new_tokens=7, session="a")
    assert begun + rest.text == whole


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_goes_on(budgie, name):
    made = gone_on(budgie, build_plain_text([], TEXT), strategy=name, seed=3, force_words="owl", exit_layer=3)
    assert made.finish and made.usage.new_tokens > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, row in STRATEGIES.items() if not row.drafts and n != "early_exit"])
def test_every_strategy_goes_on_with_a_base_model(gpt2, name):
    made = gone_on(gpt2, build_plain_text([], TEXT), strategy=name, seed=3, force_words="owl", exit_layer=1)
    assert made.finish and made.usage.new_tokens > 1


def test_early_exit_is_refused_where_transformers_runs_all_layers(gpt2):
    with pytest.raises(BadSetting, match=r"runs all its layers for every token, so .* Choose another strategy"):
        gone_on(gpt2, build_plain_text([], TEXT), strategy="early_exit", exit_layer=1)


def test_marks_of_a_thought_are_text_and_messages_before_are_not_read(budgie):
    history = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    assert build_plain_text(history, TEXT) == [Message("user", TEXT)]
    assert build_plain_text(history[:1], "") == [Message("user", "What?")]
    made = gone_on(budgie, build_plain_text([], "<think>\nhm"), max_new_tokens=4)
    assert made.text and not made.thought


def test_a_base_model_does_not_chat_and_a_text_that_is_too_long_is_refused(gpt2):
    with pytest.raises(BadSetting, match=r"has no chat template: .* Set mode to 'plain text'\."):
        gone_on(gpt2, build_messages([], "Hello"), mode="chat")
    with pytest.raises(BadConversation, match=r"This text needs \d+ tokens, but .* reads at most \d+"):
        gone_on(gpt2, build_plain_text([], "owl, river. " * 300))
    with pytest.raises(BadConversation, match="There is no text to continue"):
        build_plain_text([], "")


def test_guidance_steers_away_from_the_text_after_the_negative_prompt(budgie):
    away = {"guidance_scale": 3.0, "negative_prompt": "A story of a boat."}
    made = gone_on(budgie, build_plain_text([], TEXT), **away)
    assert made.text and "negative" in made.run_record.program


@pytest.mark.slow
def test_page_and_api_offer_a_base_model_plain_text_only(folder, chromium):
    app = Space(MODEL_IDS=f"budgie,{folder}")
    try:
        client = Client(app.url, verbose=False)
        base = folder.name
        by_default = client.predict(TEXT, model=base, strategy="greedy", max_new_tokens=8, api_name="/chat")
        assert by_default == client.predict(
            TEXT, model=base, mode="plain text", strategy="greedy", max_new_tokens=8, api_name="/chat"
        )
        with pytest.raises(AppError, match="has no chat template"):
            client.predict("Hello", model=base, mode="chat", api_name="/chat")
        visitor = Visitor(chromium, app.url)
        system = visitor.page.locator("#setting-system_prompt")
        expect(system).to_be_visible()
        visitor.page.get_by_role("button", name="More settings").click()
        visitor.page.locator("#setting-mode").get_by_label("Plain text").check()
        expect(system).to_be_hidden()
        visitor.limit(8)
        visitor.ask("Once upon a time, an owl")
        assert visitor.answer.inner_text().strip()
        visitor.choose("model", "gpt2")
        expect(visitor.page.locator("#setting-mode").get_by_role("radio")).to_have_count(1)
        visitor.ask("and then")
        visitor.close()
        assert visitor.faults == []
    finally:
        app.close()
