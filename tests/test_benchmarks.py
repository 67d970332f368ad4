"""The figures of the README are those that were measured, and what is measured agrees with itself."""

import json

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import chart, measures
from benchmarks.measures import Row
from tests.test_readme import TEXT

ROWS = [Row(**row) for row in json.loads(benchmarks.RESULTS.read_text("utf-8"))]


def test_the_readme_shows_what_was_measured():
    shown = TEXT.split("<!-- figures -->\n")[1].split("\n<!-- end of figures -->")[0]
    assert shown == benchmarks.table(ROWS), "run python -m benchmarks"


def test_everything_that_has_a_meaning_was_measured():
    assert {row.name for row in ROWS} == set(benchmarks.MEANINGS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name} {row.model}")
def test_a_ratio_lies_within_its_spread_and_fits_its_figures(row):
    if row.baseline is None:
        assert row.ratio is row.low is row.high is None
        return
    assert row.low <= row.ratio <= row.high
    quotient = measures.ratio(row.unit, row.ours, row.baseline)
    assert row.low * 0.99 <= quotient <= row.high * 1.01


def test_a_figure_is_the_median_of_the_rounds():
    made = measures.row("decode_vs_plain", "a shape", "tokens/s", [(20, 10), (90, 10), (30, 10)])
    assert (made.ours, made.baseline, made.ratio, made.low, made.high) == (30, 10, 3, 2, 9)
    made = measures.row("start", "a shape", "s", [(2, 10)])
    assert made.ratio == 5


def test_the_first_round_only_warms_up():
    assert measures.in_turn(2, lambda n: n, lambda n: -n) == [(1, -1), (2, -2)]


def test_the_chart_draws_a_point_for_each_turn():
    drawn = chart.svg([(100, 0.1, 0.2), (200, 0.1, 0.4), (300, 0.1, 0.6)])
    whole = drawn.split('class="whole" d="M')[1].split('"')[0]
    heights = [float(point.split(",")[1]) for point in whole.split("L")]
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)
