"""The settings as a generation_config.json: nothing of them is lost in it, and transformers reads it."""

import itertools
import json
import re
import threading

import pytest
import torch
from playwright.sync_api import expect
from transformers import GenerationConfig

from parley.engines.base import TurnRequest
from parley.events import Answer
from parley.generation.prompt import render_prompt
from parley.messages import build_messages
from parley.settings import OPTIONS, Settings
from parley.strategies import STRATEGIES
from parley.ui.views import conversations, settings_file
from tests.conftest import draft
from tests.ui.test_conversations import Kept

pytest_plugins = ["tests.browser"]

# One value of each kind that is not the default, none of them round.
OTHERS = {
    **{"temperature": 0.6180339887, "top_p": 0.93, "top_k": 17, "min_p": 0.031, "typical_p": 0.77, "top_h": 0.41},
    **{"top_n_sigma": 1.7, "epsilon_cutoff": 0.0007, "eta_cutoff": 0.0003, "num_beams": 3, "length_penalty": -0.3},
    **{"beam_groups": 3, "beams_per_group": 4, "diversity_penalty": 1.3, "force_words": "owl\nold lamp"},
    **{"penalty_alpha": 0.35, "candidates": 7, "dola_layers": "low", "draft_tokens": 3, "matching_ngram": 4},
    **{"exit_layer": 3, "repetition_penalty": 1.07, "no_repeat_ngram_size": 5, "guidance_scale": 1.4},
    **{"negative_prompt": "rude", "watermark_bias": 2.3, "watermark_key": 4711, "max_new_tokens": 33},
    **{"thinking_budget": 12, "stop": "a\\nb\nend", "seed": 11, "thinking": True, "reasoning_effort": "low"},
    **{"answer_start": "Well,", "system_prompt": "Be \N{BIRD}.", "presence_penalty": -0.5, "frequency_penalty": 0.4},
    **{"dry_multiplier": 0.8, "dry_base": 1.6, "dry_allowed_length": 3, "dynatemp_range": 0.3, "xtc_probability": 0.2},
    **{"dynatemp_exponent": 1.2, "xtc_threshold": 0.15, "mirostat_tau": 4.5, "mirostat_eta": 0.2, "min_new_tokens": 4},
    **{"logit_bias": '{"262": -5}', "bad_words": "cat", "answer_form": "regex", "answer_pattern": "[a-z]+"},
    **{"model": "budgie", "mode": "plain text"},
}


@pytest.fixture
def stock(tmp_path):
    """What transformers reads from the file of these settings."""

    def read(chosen):
        (tmp_path / settings_file.NAME).write_text(json.dumps(settings_file.write(chosen)))
        return GenerationConfig.from_pretrained(tmp_path)

    return read


def used(strategy):
    """The settings that a file of this strategy holds, of those above and the strategy itself."""
    return {n: v for n, v in OTHERS.items() if n in STRATEGIES[strategy].uses or n not in settings_file.OF_STRATEGIES}


def test_there_is_another_value_of_every_setting():
    assert set(OTHERS) == set(OPTIONS) - {"strategy"}
    assert [n for n, value in OTHERS.items() if value == OPTIONS[n].default] == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_file_gives_the_settings_again(strategy, stock):
    for values in used(strategy), {}:
        before = Settings.check({"strategy": strategy, **values})
        fields = json.loads(json.dumps(settings_file.write(before)))
        found, others = settings_file.read(fields)
        assert set(found) == {"strategy", *used(strategy)} and others == []
        kept, refused = conversations.checked(found)
        assert refused == [] and Settings.check(kept) == before
        config = stock(before)  # transformers keeps what it does not know
        assert all(getattr(config, n) == value for n, value in fields.items() if n != "watermarking_config")


def test_a_temperature_of_zero_stays_that_of_its_strategy(stock):
    before = Settings.check({"strategy": "beam_sampling", "temperature": 0, "num_beams": 3})
    fields = settings_file.write(before)
    assert (fields["do_sample"], fields["num_beams"], fields["temperature"]) == (False, 3, 0)
    assert Settings.check(settings_file.read(fields)[0]) == before


STOCK = {
    "greedy": {"repetition_penalty": 1.0, "no_repeat_ngram_size": 3},
    "sampling": {"temperature": 1.3, "top_p": 0.93, "top_k": 0, "min_p": 0.02},
    "beams": {"num_beams": 3, "length_penalty": 0.4},
    "prompt_lookup": {"draft_tokens": 3},
    "early_exit": {"exit_layer": 2, "draft_tokens": 3},
    "green_list": {"watermark_bias": 2.5, "watermark_key": 4711},
}


@pytest.mark.parametrize("strategy", STOCK)
def test_stock_generate_gives_the_same_tokens_with_the_file(budgie, torch_budgie, stock, strategy):
    values = {"strategy": strategy, "max_new_tokens": 30, "min_new_tokens": 20, "seed": 7}
    chosen = Settings.check({**values, **STOCK[strategy]})
    messages = build_messages([], "Tell me a story about an owl.")
    made = Answer.of(budgie.stream(TurnRequest.of(messages, chosen, threading.Event(), draft())))
    config, prompt = stock(chosen), render_prompt(budgie.loaded, messages, chosen).ids
    if config.do_sample:
        torch.manual_seed(config.seed)
    output = torch_budgie.loaded.model.generate(
        prompt, generation_config=config, attention_mask=torch.ones_like(prompt)
    )
    assert output[0, prompt.shape[1] :].tolist() == list(made.ids) and len(made.ids) >= 20


@pytest.mark.parametrize(
    ("fields", "strategy"),
    [
        ({"do_sample": True, "temperature": 0.6, "top_k": 20}, "sampling"),
        ({"do_sample": False, "num_beams": 4, "temperature": 0.6}, "beams"),
        ({"do_sample": True, "num_beams": 4}, "beam_sampling"),
        ({"do_sample": False, "num_beams": 1}, "greedy"),
        ({"penalty_alpha": 0.6, "top_k": 5}, "contrastive"),
        ({"prompt_lookup_num_tokens": 4}, "prompt_lookup"),
        ({"temperature": 0.6}, None),
    ],
)
def test_a_file_of_a_model_says_which_strategy_it_is_for(fields, strategy):
    beside = {"eos_token_id": [1, 2], "pad_token_id": 0, "transformers_version": "4.51.0"}
    values, others = settings_file.read(fields | beside)
    assert values.get("strategy") == strategy and others == []
    renamed = {"top_k": "candidates", "prompt_lookup_num_tokens": "draft_tokens"} if strategy not in SAMPLED else {}
    wanted = {renamed.get(n, n): v for n, v in fields.items() if n != "do_sample" and (n, v) != ("num_beams", 1)}
    assert {n: v for n, v in values.items() if n != "strategy"} == wanted


SAMPLED = ("sampling", "beam_sampling", None)


def opened(fields, **now):
    """The values that the page gets, and what it says."""
    values = {n: o.default for n, o in OPTIONS.items()} | {"model": "budgie"} | now
    *updates, said = settings_file.open_file(json.dumps({"fields": fields, "now": values}))
    return {n: update.get("value") for n, update in zip(OPTIONS, updates, strict=True)}, json.loads(said)


def test_what_cannot_be_set_is_told_and_the_rest_stays():
    fields = {"strategy": "beams", "num_beams": 99, "length_penalty": 0.5, "model": "nobody/here", "max_length": 20}
    values, said = opened({**fields, "cache_implementation": "static"}, num_beams=3, system_prompt="Be brief.")
    assert (values["num_beams"], values["length_penalty"], values["model"]) == (3, 0.5, "budgie")
    assert values["system_prompt"] == "Be brief." and values["strategy"] == "beams"
    assert "Beams must be a whole number from 2 to 8; 99 is not." in said["notice"]
    assert "There is no model called 'nobody/here' here." in said["notice"]
    assert said["others"] == "cache_implementation, max_length" and said["opened"]


@pytest.mark.parametrize("given", ["[]", "{}", '{"fields": [], "now": {}}', '{"fields": {"a": 1}, "now": {}}', "x"])
def test_a_file_without_settings_changes_nothing(given):
    *updates, said = settings_file.open_file(given)
    assert json.loads(said)["notice"] == conversations.TEXTS["unreadable"]
    assert all("value" not in update for update in updates)


ANYTHING = (None, True, -1, 1e308, "", "x" * 9, [], ["a"], [1, None], {}, {"path": "/etc/passwd"})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OPTIONS, *sum(settings_file.RENAMED.values(), ()), "do_sample"])
def test_whatever_a_file_holds_is_set_or_refused(name):
    strategies = itertools.cycle(("greedy", "contrastive", "diverse_beams", None, ["beams"]))
    for value, strategy in zip(ANYTHING, strategies, strict=False):
        values, said = opened({"seed": 5, "strategy": strategy, name: value}, num_beams=3)
        assert said["opened"] or said["notice"]
        given = {n: each for n, each in values.items() if each is not None}
        assert conversations.checked(given)[1] == [], (strategy, value)


def test_settings_that_are_refused_are_not_saved():
    said = json.loads(settings_file.save(json.dumps({"top_p": 7})))
    assert said == {"notice": "Top-p must be a number from 0.05 to 1.0; 7 is not."}


DROP = """([name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name));
  for (const type of ["dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def number(visitor, name):
    return visitor.setting(name).locator("input[type=number]")


@pytest.mark.slow
def test_a_visitor_saves_the_settings_and_opens_them_again(visitor, tmp_path):
    visitor.choose("strategy", "Beam search")
    number(visitor, "num_beams").fill("6")
    visitor.limit(9)
    visitor.box.fill("a draft")
    kept, note = Kept(visitor).show(), visitor.page.locator("#conversation-note")
    with visitor.tab.expect_download() as saved:
        kept.dialog.get_by_role("button", name="Save settings").click()
    expect(note).to_contain_text("Saved as generation_config.json")
    assert saved.value.suggested_filename == settings_file.NAME
    path = tmp_path / settings_file.NAME
    saved.value.save_as(path)
    config = GenerationConfig.from_pretrained(tmp_path)
    assert (config.num_beams, config.max_new_tokens, config.do_sample, config.strategy) == (6, 9, False, "beams")

    visitor.choose("strategy", "Greedy")
    visitor.limit(20)
    with visitor.tab.expect_file_chooser() as chooser:
        kept.show().dialog.get_by_role("button", name="Open a file").click()
    chooser.value.set_files(path)
    expect(note).to_contain_text(conversations.TEXTS["settings_opened"])
    expect(visitor.setting("strategy").locator("input")).to_have_value("Beam search")
    expect(number(visitor, "num_beams")).to_have_value("6")
    expect(number(visitor, "max_new_tokens")).to_have_value("9")
    expect(visitor.box).to_have_value("a draft")
    visitor.ask("Hello, who are you?")
    expect(visitor.quiet).to_have_text(re.compile("Beam search · "))


@pytest.mark.slow
def test_a_file_can_be_dropped_and_a_bad_one_loses_nothing(visitor):
    note = visitor.page.locator("#conversation-note")
    visitor.box.fill("a draft")
    asked = {"do_sample": True, "temperature": 1.15, "top_p": 7, "eos_token_id": 3, "max_length": 20}
    visitor.tab.evaluate(DROP, ["generation_config.json", json.dumps(asked)])
    expect(number(visitor, "temperature")).to_have_value("1.15")
    expect(note).to_contain_text("Top-p must be a number from 0.05 to 1.0; 7 is not.")
    expect(note).to_contain_text(conversations.TEXTS["others"].format(names="max_length"))
    for content in "no JSON", "[1]", '{"eos_token_id": 3}', '{"messages": []}':
        note.get_by_role("button").click()
        expect(note).to_be_empty()
        visitor.tab.evaluate(DROP, ["any.json", content])
        expect(note).to_contain_text(conversations.TEXTS["unreadable"])
    expect(visitor.box).to_have_value("a draft")
    expect(number(visitor, "temperature")).to_have_value("1.15")
