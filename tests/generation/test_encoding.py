"""Parts of a text as tokens: no space too many, and no control token from what people typed."""

import json
import threading

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from parley.engines.base import TurnRequest
from parley.engines.loader import load
from parley.events import Answer
from parley.generation.encoding import encode_inside, encode_typed
from parley.generation.generation_config import plan_generation
from parley.generation.prompt import render_prompt
from parley.messages import Message
from parley.models.spec import ModelSpec
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.standins.hub import save_tiny_model

ASK = Message("user", "Hi")


@pytest.fixture(scope="module")
def llama_like():
    """A tokenizer that puts a space before every text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=60, special_tokens=["<unk>", "</s>"], initial_alphabet=["\n"], show_progress=False
    )
    tokenizer.train_from_iterator(["an otter", "an owl saw", "saw an otter"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def test_a_word_within_a_text_has_one_space_before_it(llama_like):
    assert llama_like.decode(llama_like.encode(" otter", add_special_tokens=False)).startswith(
        " "
    )  # two, one stripped
    before = llama_like.encode("saw an", add_special_tokens=False)
    for encode in (encode_inside, encode_typed):
        assert llama_like.decode([*before, *encode(llama_like, " otter")]) == "saw an otter"


def test_a_forced_word_is_no_control_token(budgie):
    settings = Settings.check({"strategy": "constrained_beams", "force_words": "x<|im_end|>y\nowl"})
    prompt = render_prompt(budgie.loaded, [ASK], settings)
    plan = plan_generation(budgie.loaded, STRATEGIES["constrained_beams"], settings, prompt)
    tokenizer = budgie.loaded.tokenizer
    first, second = plan.options["phrases"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in first
    assert (tokenizer.decode(first), tokenizer.decode(second)) == (" x<|im_end|>y", " owl")


def with_added(folder, monkeypatch, **tokens):
    """A tiny model whose tokenizer has these added tokens; the value says whether one is special."""
    monkeypatch.setenv("ENGINE", "transformers")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    rest = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    vocabulary = tokenizer["model"]["vocab"]
    for content, special in tokens.items():
        id = vocabulary.get(content, 2048 + len(tokenizer["added_tokens"]))
        tokenizer["added_tokens"].append({"id": id, "content": content, "special": special} | rest)
    tokenizer["added_tokens"].sort(key=lambda token: token["id"])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return load(ModelSpec("m", str(folder), "Tiny"), lambda _: None, threading.Event())


@pytest.fixture
def wide(tmp_path):
    return save_tiny_model(tmp_path / "wide", vocab_size=2304)


def test_only_marks_that_are_special_or_that_the_template_writes_are_guarded(wide, monkeypatch):
    template = (wide / "chat_template.jinja").read_text() + "{{ '<row>' }}"
    (wide / "chat_template.jinja").write_text(template)
    model = with_added(wide, monkeypatch, **{"<table>": False, "<row>": False, "<SPECIAL_12>": True})
    prompt = render_prompt(model, [Message("user", "<table><row><SPECIAL_12>")], Settings())
    ids = prompt.ids[0].tolist()
    tokens = model.tokenizer.convert_tokens_to_ids(["<table>", "<row>", "<SPECIAL_12>"])
    assert [ids.count(id) for id in tokens] == [1, 1, 0]  # the template wrote the second one


def test_a_mark_that_a_template_joins_in_a_question_is_text(wide, monkeypatch):
    (wide / "chat_template.jinja").write_text("{{ messages[0].content.replace('/think', '') }}<|im_end|>")
    model = with_added(wide, monkeypatch, **{"<SPECIAL_12>": True})
    prompt = render_prompt(model, [Message("user", "a <SPECIAL_/think12> b")], Settings())
    assert model.tokenizer.convert_tokens_to_ids("<SPECIAL_12>") not in prompt.ids[0].tolist()
    assert model.tokenizer.decode(prompt.ids[0]) == "a <SPECIAL_12> b<|im_end|>"


def test_a_tokenizer_whose_ordinary_text_gives_an_added_token_still_answers(wide, monkeypatch):
    vocabulary = json.loads((wide / "tokenizer.json").read_text())["model"]["vocab"]
    words = (word for word in vocabulary if word.isalpha() and word.isascii() and len(word) > 3)
    word = next(word for word in words if not any(word in role for role in ("user", "assistant", "system")))
    model = with_added(wide, monkeypatch, **{word: True})
    prompt = render_prompt(model, [Message("user", word)], Settings())
    assert model.tokenizer.convert_tokens_to_ids(word) not in prompt.ids[0].tolist()
    assert word in model.tokenizer.decode(prompt.ids[0])


SAID = "A thought begins with <think> and ends with </think> in most models."


@pytest.mark.parametrize(("said", "shortened"), [(SAID, True), ("A bird.", False)])
def test_a_template_that_drops_a_part_of_an_earlier_answer_is_said_to(budgie, said, shortened):
    told = [ASK, Message("assistant", said), Message("user", "And?")]
    settings = Settings.check({"strategy": "greedy", "max_new_tokens": 2})
    answer = Answer.of(budgie.stream(TurnRequest.of(told, settings, threading.Event())))
    assert ("left out a part of an earlier answer" in "".join(answer.notices)) is shortened
    assert answer.run_record.messages == told
