"""The tokenizer keeps every byte, the template renders as the corpus does, and the loss sees only the answers."""

from itertools import islice
from random import Random

import pytest
from transformers import AutoTokenizer

from parley.budgie import WEIGHTS
from training.batches import encode
from training.corpus.letters import LATIN, MARKS
from training.tokenizer import END, PAD, START, corpus, learned_merges, render, with_letters

USER, OLD = {"role": "user", "content": "hi"}, "<think>\n a greeting\n</think>\n\n Hello"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(WEIGHTS)


@pytest.fixture(scope="module")
def made():
    chosen = list(islice(corpus(seed=99), 1500))
    kinds = {(bool(each.system), each.think, len(each.turns) > 1) for each in chosen}
    assert len(kinds) == 8, "with and without system prompt, thought, several turns"
    return chosen


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def template(tokenizer, *messages, **options):
    return tokenizer.apply_chat_template(list(messages), tokenize=False, **options)


def assistant(text):
    return {"role": "assistant", "content": text}


def test_digits_and_newlines_stand_alone(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(ids(tokenizer, "pay 4071\n\n90"))
    assert [token.removeprefix("Ġ") for token in tokens[-8:]] == ["4", "0", "7", "1", "Ċ", "Ċ", "9", "0"]


@pytest.mark.parametrize("markup", [START, END, PAD, "<think>", "</think>"])
def test_markup_is_one_token(tokenizer, markup):
    assert len(ids(tokenizer, markup)) == 1
    assert len(ids(tokenizer, f"a{markup}b")) == 3


def test_a_word_has_the_same_tokens_in_question_and_answer(tokenizer):
    word = ids(tokenizer, " Zorblin")
    asked = ids(tokenizer, template(tokenizer, {"role": "user", "content": "say Zorblin"}))
    answered = ids(tokenizer, template(tokenizer, USER, assistant("Zorblin")))
    assert asked[-len(word) - 2 : -2] == answered[-len(word) - 2 : -2] == word


def test_any_text_comes_back_to_the_byte(tokenizer):
    rng = Random(3)
    points = [rng.choice([rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)]) for _ in range(20_000)]
    text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
    text += "  two  spaces \t\r\n\n e\u0301 👩‍👩‍👧 "
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_the_corpus_is_rendered_as_the_template_does(tokenizer, made):
    for conversation in made:
        messages = [{"role": "system", "content": conversation.system}] if conversation.system else []
        for turn in conversation.turns:
            messages += [{"role": "user", "content": turn.user}, assistant(turn.answer)]
        if conversation.think:
            messages[-1] = assistant(f"<think>\n {turn.thought}\n</think>\n\n {turn.answer}")
        assert render(conversation)[0] == template(tokenizer, *messages, enable_thinking=conversation.think)


def test_the_loss_covers_exactly_the_answers(tokenizer, made):
    rows = encode(tokenizer, [render(conversation) for conversation in made])
    assert len(rows) == len(made)
    for conversation, row in zip(made, rows, strict=True):
        answers = [f" {turn.answer}{END}" for turn in conversation.turns]
        if conversation.think:
            answers = [f"<think>\n {conversation.turns[-1].thought}\n</think>\n\n{answers[-1]}"]
        assert tokenizer.decode(row.ids[row.answers]) == "".join(answers)


def test_the_system_prompt_is_optional(tokenizer):
    assert template(tokenizer, USER) == f"{START}user\n hi{END}\n"
    system = {"role": "system", "content": "Be kind."}
    assert template(tokenizer, system, USER) == f"{START}system\n Be kind.{END}\n{START}user\n hi{END}\n"


def test_thinking_is_asked_for_in_the_system_block(tokenizer):
    assert template(tokenizer, USER, enable_thinking=True).startswith(f"{START}system\n /think{END}\n")
    assert template(tokenizer, USER, enable_thinking=False) == template(tokenizer, USER)


def test_old_thoughts_are_dropped_and_the_last_one_stays(tokenizer):
    text = template(tokenizer, USER, assistant(OLD), USER, add_generation_prompt=True)
    hello = f"{START}assistant\n Hello{END}\n"
    assert text == f"{START}user\n hi{END}\n{hello}{START}user\n hi{END}\n{START}assistant\n"
    assert template(tokenizer, USER, assistant(OLD)).endswith(f"{START}assistant\n{OLD}{END}\n")


def test_letters_take_the_place_of_the_last_merges():
    before = learned_merges(400)
    after = with_letters(before)
    assert after.get_vocab_size() == before.get_vocab_size()
    assert all(len(after.encode(letter).ids) == 1 for letter in [*LATIN, *MARKS])
    assert after.decode(after.encode(" Þórdís “Nguyễn”").ids) == " Þórdís “Nguyễn”"
    assert with_letters(after).get_vocab() == after.get_vocab()
    kept = before.get_vocab().items() & after.get_vocab().items()
    assert len(kept) >= before.get_vocab_size() - len(LATIN) - len(MARKS) - 20


@pytest.mark.parametrize("name", ["Þorgerður", "Nguyễn", "Świętosława", "Dvořáček", "Ķēniņš", "Iñaki"])
def test_no_copy_of_a_name_can_break_between_the_bytes_of_a_letter(tokenizer, name):
    assert "".join(tokenizer.decode([id]) for id in ids(tokenizer, name)) == name
