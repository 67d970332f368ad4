"""The drawn part of the exam: the seed decides it, and the corpus can hold none of its wordings."""

import re
from itertools import islice

import pytest

from training.corpus import conversations
from training.draws import drawn_rows, drawn_words, load
from training.exam import DRAW, passes, questions
from training.tokenizer import render


def words(text):
    return set(re.findall(r"\w+", text.lower()))


def test_the_seed_decides_the_questions():
    assert drawn_rows(DRAW) == drawn_rows(DRAW) != drawn_rows(DRAW + 1)
    assert questions() == questions(DRAW)


@pytest.mark.parametrize("skill", ["copying", "recall"])
def test_every_wording_holds_a_word_that_the_corpus_cannot_contain(skill):
    held_out = {word.lower() for word in drawn_words()}
    for wording in load()[skill]["wordings"]:
        for text in [wording] if isinstance(wording, str) else wording:
            assert words(text) & held_out, text


def test_the_corpus_would_hardly_ever_use_these_words_by_itself():
    said = set().union(*(words(render(each)[0]) for each in islice(conversations(11), 3000)))
    assert len({word.lower() for word in drawn_words()} & said) < 5


def test_what_is_expected_was_said_to_the_model_and_passes():
    for skill, (check, rows) in drawn_rows(5).items():
        assert len(rows) >= 60
        for first, *_, expected in rows:
            assert expected in first
        asked = [question for question in questions(5) if question.skill == skill]
        assert {question.check for question in asked} == {check}
        assert all(passes(question, question.expected) for question in asked)
        assert not any(passes(question, "something else") for question in asked)
