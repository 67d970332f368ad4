"""The corpus is endless and repeatable, its facts are right, and it holds nothing that the exam asks."""

import re
from itertools import islice

import pytest

from training.corpus import conversations, normalise
from training.exam import held_out_turns, held_out_values
from training.tokenizer import corpus, render

pytestmark = pytest.mark.slow  # they look at thousands of conversations


@pytest.fixture(scope="module")
def made():
    return list(islice(corpus(seed=2026), 12_000))


def said(conversation):
    """What the user and the system prompt say."""
    return {normalise(text) for text in (conversation.system, *(turn.user for turn in conversation.turns)) if text}


@pytest.mark.slow
def test_no_wording_of_the_exam_occurs(made):
    wordings = set().union(*map(said, made))
    assert len(wordings) > 8000
    assert not wordings & held_out_turns()


def test_no_held_out_value_occurs(made):
    text = "\n".join(render(conversation)[0] for conversation in made).lower()
    words = set(re.findall(r"\w+", text))
    assert len(words) > 4000
    assert not [value for value in held_out_values() if (value.lower() in words if value.isalpha() else value in text)]


def test_what_is_held_out_is_left_out():
    free = list(islice(conversations(7), 400))
    turns, values = said(free[0]) | said(free[1]), ["Budgie", "blue"]
    kept = list(islice(conversations(7, held_out=turns, values=values), 300))
    assert not any(said(conversation) & turns for conversation in kept)
    text = "\n".join(turn.user + turn.answer for conversation in kept for turn in conversation.turns)
    assert not re.search(r"\b(budgie|blue)\b", text, re.IGNORECASE)


def test_the_seed_decides_everything():
    first, again, other = (list(islice(corpus(seed), 300)) for seed in (5, 5, 6))
    assert first == again != other


def test_sums_are_right_and_every_pair_is_there(made):
    answers = " ; ".join(turn.answer for each in made for turn in each.turns if turn.skill == "sums")
    sums = {tuple(map(int, found)) for found in re.findall(r"(\d+) (?:\+|plus) (\d+) (?:=|is) (\d+)", answers)}
    assert all(a + b == result for a, b, result in sums)
    assert {(a, b) for a, b, _ in sums} == {(a, b) for a in range(11) for b in range(11)}


def test_a_recalled_fact_is_one_that_was_told(made):
    recalled = [
        (turn.core, "\n".join(before.user for before in conversation.turns[:place]))
        for conversation in made
        for place, turn in enumerate(conversation.turns)
        if turn.skill == "recall"
    ]
    assert len(recalled) > 1000
    assert all(value in before for value, before in recalled)
