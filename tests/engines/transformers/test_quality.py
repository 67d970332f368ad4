"""Rounded, models answer nearly as well: text stays as likely, and few answers change."""

import json

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import models, quality

DIALOGUES = 24
ROWS = {row["name"]: row for row in json.loads(benchmarks.RESULTS.read_text("utf-8"))["rows"]}


@pytest.fixture(scope="module")
def floats(budgie):
    return quality.log_likelihood(budgie, DIALOGUES)


@pytest.mark.slow
@pytest.mark.parametrize("way", quality.WAYS)
def test_held_out_dialogues_stay_as_likely(way, floats):
    rough = quality.WAYS[way]()
    assert rough.loaded.plan.engine == way and rough.loaded.plan.quantization == "int8"
    drop = floats - quality.log_likelihood(rough, DIALOGUES)
    assert drop != 0
    assert abs(drop) < 0.01  # nats a token: one per cent of its probability


def test_the_real_model_finds_text_as_likely_and_answers_as_before(real_model, tmp_path):
    text, questions = quality.ENGLISH[:1500], quality.QUESTIONS[:4]
    rows = {row.name: row for row in quality.of_smollm2(models.Models(tmp_path), text, questions)}
    assert abs(rows["text_loglik_int8"].ours - rows["text_loglik_int8"].baseline) < 0.05  # nats a token
    assert 0 < rows["text_kl_int8"].ours < 0.05
    assert 90 < rows["text_best_token_int8"].ours < 100
    assert rows["questions_int8"].baseline >= 75


def test_there_are_forty_questions_each_with_answers_that_are_words():
    assert len({asked["question"] for asked in quality.QUESTIONS}) == 40
    assert all(asked["accepted"] and all(asked["accepted"]) for asked in quality.QUESTIONS)


def test_an_answer_is_right_by_whole_words_only(budgie):
    asked = {"question": "Who are you?", "accepted": ["budgie"]}
    assert quality.is_right(budgie, asked)
    assert not quality.is_right(budgie, asked | {"accepted": ["budg", "Parrot"]})


def test_budgie_loses_less_than_one_point_of_its_exam():
    measured = [row for name, row in ROWS.items() if name.startswith("exam_")]
    assert not ROWS or {row["name"] for row in measured} == {f"exam_{way}" for way in quality.WAYS}
    assert all(row["ours"] > row["baseline"] - 1 for row in measured)
