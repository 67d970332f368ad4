"""Rounded, Budgie answers nearly as well: held-out dialogues stay as likely, and its exam loses next to nothing."""

import json

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import quality

DIALOGUES = 24


@pytest.fixture(scope="module")
def floats(budgie):
    return quality.log_likelihood(budgie, DIALOGUES)


@pytest.mark.parametrize("way", [name for name in quality.WAYS if name != "openvino"])
def test_held_out_dialogues_stay_as_likely(way, floats):
    drop = floats - quality.log_likelihood(quality.WAYS[way](), DIALOGUES)
    assert drop != 0
    assert abs(drop) < 0.01  # nats a token: one per cent of its probability


def test_budgie_loses_less_than_one_point_of_its_exam():
    measured = [row for row in json.loads(benchmarks.RESULTS.read_text("utf-8")) if row["name"].startswith("exam_")]
    assert {row["name"] for row in measured} == {f"exam_{way}" for way in quality.WAYS}
    assert all(row["ours"] > row["baseline"] - 1 for row in measured)
