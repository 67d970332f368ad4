"""A thought in any dialect: folded while it is read, kept out of the history, gone on with in its own channel."""

import itertools
import json
import re
import threading

import pytest
import torch

from parley.engines.loader import load
from parley.errors import BadSetting
from parley.generation.generation_config import plan_generation
from parley.generation.prompt import render_prompt
from parley.generation.reasoning_parser import ReasoningParser, rejoined, split_thought
from parley.generation.reproduce import transformers_program
from parley.generation.streaming import AnswerStreamer, StopSignal
from parley.generation.template_probe import turn_ends
from parley.messages import Message
from parley.models.reasoning_dialects import DIALECTS
from parley.models.spec import ModelSpec
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.generation.test_reasoning_parser import splits
from tests.standins.hub import save_tiny_model

OUTPUTS = {  # what a model of each dialect writes, for the thought "Well, well." and the answer "Yes."
    "harmony": "<|channel|>analysis<|message|>Well, well.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Yes.<|end|>",
    "gemma": "<|channel>thought\nWell, well.<channel|>Yes.",
    "seed": "<seed:think>Well, well.</seed:think>Yes.",
    "command": "<|START_THINKING|>Well, well.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
    "command-text": "<|START_THINKING|>Well, well.<|END_THINKING|><|START_TEXT|>Yes.<|END_TEXT|>",
    "apertus": "<|inner_prefix|>Well, well.<|inner_suffix|>Yes.",
    "minimax": "<mm:think>Well, well.</mm:think>\n\nYes.",
    "kimi": "<|open|>think<|sep|>Well, well.<|close|>think<|sep|><|open|>response<|sep|>Yes.<|close|>response<|sep|>",
    "solar": "<|think|>Well, well.<|end|><|begin|>assistant<|content|>Yes.<|end|>",
    "apriel": "Here are my reasoning steps:\nWell, well.\n[BEGIN FINAL RESPONSE]\nYes.[END FINAL RESPONSE]",
    "granite-3.2": "Here is my thought process:\nWell, well.\n\nHere is my response:\nYes.",
    "granite": "<think>Well, well.</think>\n<response>Yes.</response>",
    "magistral": "[THINK]Well, well.[/THINK]Yes.",
    "kimi-dev": "◁think▷Well, well.◁/think▷Yes.",
    "think": "<think>\nWell, well.\n</think>\n\nYes.",
}
CONTROLS = sorted({*re.findall("<[^<>]+>", "".join(OUTPUTS.values())), "<|return|>"})
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}<|message|>"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
USER = Message("user", "Hi")


def read(chunks, **options):
    """Text and thought as a page shows them at the end of a stream."""
    parser, text, thought = ReasoningParser(**options), "", ""
    for chunk, last in [*((chunk, False) for chunk in chunks), ("", True)]:
        more_text, more_thought = parser.feed(chunk, last=last)
        text, thought = ("", "") if parser.folded else (text, thought)
        text, thought = text + more_text, thought + more_thought
    return text, thought


@pytest.mark.parametrize("name", DIALECTS)
def test_the_thought_is_folded_and_the_text_alone_is_shown_however_the_chunks_are_cut(name):
    for chunks in splits(OUTPUTS[name], times=15):
        assert read(chunks, dialect=DIALECTS[name]) == ("Yes.", "Well, well."), chunks


@pytest.mark.parametrize("name", DIALECTS)
def test_an_answer_without_a_thought_is_all_text(name):
    row = DIALECTS[name]
    for output in ("Yes.", row.answer + "Yes."):
        assert read(list(output), dialect=row) == ("Yes.", "")


def test_several_thoughts_in_messages_of_their_own_become_one():
    output = "<|channel|>analysis<|message|>One.<|end|><|start|>assistant" + OUTPUTS["harmony"]
    assert read(list(output), dialect=DIALECTS["harmony"]) == ("Yes.", "One.\n\nWell, well.")


BARE = "The user greets me.\n</think>\n\nHello friend."


def test_a_mark_that_ends_a_thought_which_nothing_opened_folds_what_came_before_as_soon_as_it_comes():
    for chunks in splits(BARE):
        assert read(chunks) == ("Hello friend.", "The user greets me."), chunks
    parser = ReasoningParser()
    assert parser.feed("The user greets me.") == ("The user greets me.", "") and not parser.folded
    assert parser.feed("\n</think>") == ("", "The user greets me.") and parser.folded
    assert parser.feed("\n\nHello </think>", last=True) == ("Hello </think>", "") and not parser.folded


@pytest.mark.parametrize(
    "text",
    [
        "A thought begins with <think> and ends with </think> in most models.",
        "The mark `</think>` ends a thought.",
        'It is "</think>".',
    ],
)
def test_a_mark_that_is_only_mentioned_folds_nothing(text):
    for chunks in splits(text):
        assert read(chunks) == (text, ""), chunks
    assert split_thought(text) == (text, "")
    assert split_thought(BARE) == (BARE, "")  # in a message that is kept, nothing is dropped


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model whose tokenizer has the marks of all dialects as special tokens."""
    folder = save_tiny_model(tmp_path_factory.mktemp("dialects") / "model", vocab_size=2304)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    new = [mark for mark in CONTROLS if mark not in {token["content"] for token in tokenizer["added_tokens"]}]
    for id, mark in zip(itertools.count(2048), new, strict=False):
        tokenizer["added_tokens"].append(
            {"id": id, "content": mark, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        )
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "generation_config.json").unlink()
    return folder


def loaded(folder, template, monkeypatch):
    monkeypatch.setenv("ENGINE", "transformers")
    (folder / "chat_template.jinja").write_text(template)
    return load(ModelSpec("m", str(folder), "Tiny"), lambda _: None, threading.Event())


def test_special_tokens_in_the_marks_are_read_though_decoding_drops_them(tiny, monkeypatch):
    model = loaded(tiny, HARMONY, monkeypatch)
    assert model.dialect.name == "harmony"
    signal = StopSignal(threading.Event(), 60)
    streamer = AnswerStreamer(
        model.tokenizer, [5], lambda: ReasoningParser(dialect=model.dialect), signal, model.dialect
    )
    streamer.put(torch.tensor([5]))
    streamer.put(torch.tensor(model.tokenizer.encode(OUTPUTS["harmony"], add_special_tokens=False)))
    streamer.close()
    deltas = list(streamer)
    assert ("".join(d.text for d in deltas), "".join(d.thought for d in deltas)) == ("Yes.", "Well, well.")
    assert signal.reason == "end"


@pytest.mark.parametrize(
    ("text", "thought", "end"),
    [
        ("", "Hm", "<|start|>assistant<|channel|>analysis<|message|>Hm"),
        ("Y", "Hm", "assistant<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Y"),
        ("Y", "", "<|start|>assistant<|channel|>final<|message|>Y"),
    ],
)
def test_an_answer_goes_on_in_its_own_channel(tiny, monkeypatch, text, thought, end):
    model = loaded(tiny, HARMONY, monkeypatch)
    prompt = render_prompt(model, [USER, Message("assistant", rejoined(text, thought))], Settings())
    assert model.tokenizer.decode(prompt.ids[0]).endswith(end)
    assert prompt.in_reasoning is not bool(text)


def test_a_text_follows_an_opened_thought_only_after_the_thought_is_closed(budgie, monkeypatch):
    opens = "{{ messages[0].content }}{% if add_generation_prompt %}\n<think>\n{% endif %}"
    monkeypatch.setattr(budgie.loaded.tokenizer, "chat_template", opens)
    prompt = render_prompt(budgie.loaded, [USER, Message("assistant", "Yes")], Settings())
    assert budgie.loaded.tokenizer.decode(prompt.ids[0]) == "Hi<think>\n\n</think>\n\nYes"
    assert not prompt.in_reasoning


def test_a_thought_is_written_with_the_blank_space_that_the_template_has_around_it(budgie, monkeypatch):
    tight = (
        "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>\n"
        "{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    monkeypatch.setattr(budgie.loaded.tokenizer, "chat_template", tight)
    prompt = render_prompt(budgie.loaded, [USER, Message("assistant", rejoined("Yes", "Hm"))], Settings())
    assert budgie.loaded.tokenizer.decode(prompt.ids[0]) == "[user]Hi[assistant]<think>Hm</think>\nYes"


@pytest.mark.parametrize(
    ("switch", "shown"),
    [
        ("{{ 'on' if thinking }}", ("on", "")),
        ("{{ 'on' if thinking_mode == 'enabled' }}", ("on", "")),
        ("{{ reasoning_effort or 'none' }}", ("medium", "none")),
        ("{{ thinking_budget }}", ("-1", "0")),
        ("{{ 'off' if '/no_think' in messages[0].content else 'on' }}", ("on", "off")),
    ],
)
def test_thinking_reaches_the_template_by_the_name_that_it_reads(tiny, monkeypatch, switch, shown):
    model = loaded(tiny, "{% for m in messages %}{{ m.content }}{% endfor %}|" + switch, monkeypatch)
    for thinking, expected in zip((True, False), shown, strict=True):
        prompt = render_prompt(model, [USER], Settings(thinking=thinking))
        assert model.tokenizer.decode(prompt.ids[0]).rpartition("|")[2] == expected


def test_the_template_gets_the_level_of_reasoning_effort_that_it_takes(tiny, monkeypatch):
    model = loaded(
        tiny, "<|start|><|message|>{{ messages[0].content }}|{{ reasoning_effort or 'medium' }}", monkeypatch
    )
    for asked, expected in (("default", "medium"), ("low", "low"), ("high", "high")):
        prompt = render_prompt(model, [USER], Settings(reasoning_effort=asked))
        assert model.tokenizer.decode(prompt.ids[0]).rpartition("|")[2] == expected
    with pytest.raises(BadSetting, match="takes only low, medium, high as reasoning effort"):
        render_prompt(model, [USER], Settings(reasoning_effort="max"))
    with pytest.raises(BadSetting, match="no thinking switch, because it always thinks"):
        render_prompt(model, [USER], Settings(thinking=True))


@pytest.mark.parametrize("name", ["harmony", "seed", "command"])
def test_the_printed_program_prints_the_text_without_the_thought(tiny, monkeypatch, name):
    model = loaded(
        tiny, HARMONY if name == "harmony" else f"{{{{ messages[0].content }}}}{OUTPUTS[name]}", monkeypatch
    )
    prompt = render_prompt(model, [USER], Settings())
    plan = plan_generation(model, STRATEGIES["greedy"], Settings(), prompt)
    program = transformers_program(model, prompt, Settings(), plan, seed=0)
    lines = "\n".join(line for line in program.splitlines() if line.startswith(("answer", "print")))
    said = model.tokenizer(OUTPUTS[name] + model.tokenizer.eos_token, return_tensors="pt")["input_ids"]
    printed: list[str] = []
    known = {"tokenizer": model.tokenizer, "prompt": {"input_ids": said[:, :0]}, "output": said}
    exec(lines, known | {"print": printed.append})
    assert printed == ["Yes."]


def test_a_budget_that_cannot_be_kept_is_refused(tiny, monkeypatch):
    def plan(template, **values):
        model = loaded(tiny, template, monkeypatch)
        settings = Settings(thinking_budget=3, **values)
        prompt = render_prompt(model, [USER], settings)
        return plan_generation(model, STRATEGIES["greedy"], settings, prompt)

    with pytest.raises(BadSetting, match="does not think"):
        plan("{{ messages[0].content }}")
    with pytest.raises(BadSetting, match="no token that ends a thought"):
        plan("{{ messages[0].content }}[BEGIN FINAL RESPONSE]")
    assert plan(HARMONY).processors  # it always thinks


def test_a_special_token_that_closes_the_turn_in_the_template_ends_an_answer(tiny, monkeypatch):
    turns = "{% for m in messages %}<|inner_prefix|>{{ m.role }}\n{{ m.content }}<|inner_suffix|>\n{% endfor %}"
    tokenizer = loaded(tiny, turns, monkeypatch).tokenizer
    close = tokenizer.convert_tokens_to_ids("<|inner_suffix|>")
    assert turn_ends(tokenizer, False, None) == [close]
    model = loaded(tiny, turns.replace("inner_prefix", "open").replace("inner_suffix", "return"), monkeypatch)
    assert model.tokenizer.convert_tokens_to_ids("<|return|>") in model.model.generation_config.eos_token_id
    model = loaded(tiny, HARMONY, monkeypatch)  # the token ends a thought too, so the parser ends the answer
    assert model.tokenizer.convert_tokens_to_ids("<|end|>") not in model.model.generation_config.eos_token_id


def test_a_stated_end_is_the_only_one(tiny, monkeypatch, tmp_path):
    (tiny / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    turns = "{% for m in messages %}<|open|>{{ m.content }}<|return|>{% endfor %}"
    ends = loaded(tiny, turns, monkeypatch).model.generation_config.eos_token_id
    assert ends == [0, 2]
    (tiny / "generation_config.json").unlink()
