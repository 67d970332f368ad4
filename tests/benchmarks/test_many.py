"""Many chats at once are measured with the same conversations for all, and beside a bound that counts every pass."""

import dataclasses

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import chart, many, models, share_gpt, transformers_serve, visitors
from benchmarks.figures import MANY
from benchmarks.measures import Row, row
from benchmarks.share_gpt import Question, Workload
from benchmarks.visitors import Parley, Played, Waited
from tests.conftest import lacking


def workload(*conversations):
    """Of tuples: the tokens that each question brings, and those of its answer."""
    asked = [tuple(Question("", new) for _, new in talk) for talk in conversations]
    return Workload(asked, [[[7] * read for read, _ in talk] for talk in conversations])


@pytest.mark.parametrize(
    ("talks", "chats", "passes"),
    [
        ([[(10, 1)]], 1, 1),  # the last pass over a prompt brings a token
        ([[(10, 5)]], 1, 5),
        ([[(65, 5)]], 1, 6),
        ([[(10, 5), (10, 3)]], 1, 8),
        ([[(10, 60), (10, 3)]], 1, 60 + 1 + 3),  # the answer and the next question are 70 tokens
        ([[(10, 5)], [(10, 5)]], 1, 10),
        ([[(10, 5)], [(10, 5)]], 2, 5),
        ([[(60, 5)], [(10, 5)]], 2, 6),  # four rows are left for the second one, and then 63
        ([[(10, 5)], [(10, 2)], [(10, 3)]], 2, 5),  # the third takes the place of the second
    ],
)
def test_the_bound_counts_the_passes(talks, chats, passes):
    assert many.bound(workload(*talks), chats, lambda *_: 1) == passes


def test_the_bound_takes_what_passes_of_as_many_rows_of_each_kind_take():
    seen = []
    many.bound(workload([(70, 3)], [(10, 2)]), 2, lambda *rows: seen.append(rows) or 1)
    assert seen == [(0, 64), (0, 16), (2, 0), (1, 0)]


def test_a_pass_between_those_that_were_timed():
    times = {(0, 2): 1.0, (0, 64): 5.0, (4, 0): 2.0, (4, 60): 8.0}
    assert [many.between(times, *rows) for rows in ((0, 33), (4, 30), (4, 0), (0, 1), (2, 0))] == [3, 5, 2, 1, 1.5]


def test_after_how_many_tokens_a_token_comes():
    assert many.contexts(workload([(10, 3)])) == (11, 4)
    assert many.contexts(workload([(2, 1), (2, 1)])) == (4, 2)  # decoded at 2 and 5, read at 0, 1, and 2, 3, 4


def test_what_visitors_waited_for_is_told():
    played = Played(2.0, 100, [Waited(0, first) for first in (1.0, 2.0, 3.0)] + [Waited(1, 9.0)])
    assert (played.rate, played.first, played.next_first) == (50, 2.5, 9)
    assert 3 < played.first_p95 < 9


@pytest.mark.parametrize("sampling", [False, True])
def test_visitors_play_their_conversations_over_the_api(inside, sampling):
    asked = workload([(0, 5), (0, 4)], [(0, 3)], [(0, 5)])
    named = [
        tuple(dataclasses.replace(each, text="Tell me a story.") for each in talk) for talk in asked.conversations
    ]
    played = visitors.play(inside.url, Parley("budgie", sampling), Workload(named, asked.read), 2, 1)
    assert played.tokens == 17 and sorted(each.turn for each in played.waited) == [0, 0, 0, 1]
    assert all(0 < each.first < played.seconds for each in played.waited)


def test_a_fault_of_the_server_ends_the_measurement(inside):
    asked = Workload([(Question("Hello", 3),)], [[[7]]])
    with pytest.raises(RuntimeError, match="no-such-model"):
        visitors.play(inside.url, Parley("no-such-model"), asked, 1, 1)


def test_the_chart_has_a_line_for_each_peer_that_was_measured():
    label = many.named(models.SMOLLM2, 4)
    rows = [
        row("many_greedy_vs_llamacpp_q8", label, "tokens/s", [(100, 40)]),
        row("many_greedy_vs_one_by_one", many.named(models.SMOLLM2, 1), "tokens/s", [(50, 49)]),
        row("many_greedy_vs_bound", label, "tokens/s", [(100, 110)]),
        row("many_greedy_vs_llamacpp_q8", "another model, 4 chats", "tokens/s", [(1, 1)]),
    ]
    lines = many.by_chats(rows)
    assert lines == {"Parley": [(1, 50), (4, 100)], "llama.cpp": [(4, 40)], "one after the other": [(1, 49)]}
    drawn = chart.by_chats(lines)
    assert all(f">{name}</text>" in drawn for name in lines) and drawn.count("<path class=") > len(lines)


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """What is measured goes into copies of the files."""
    for name in ("RESULTS", "PAGE"):
        copy = tmp_path / name
        copy.write_text(getattr(benchmarks, name).read_text("utf-8"), "utf-8")
        monkeypatch.setattr(benchmarks, name, copy)
    monkeypatch.setattr(benchmarks, "CHART_MANY", tmp_path / "chart.svg")


def test_figures_that_are_measured_again_take_the_place_of_the_earlier_ones(copies):
    before = benchmarks.json.loads(benchmarks.RESULTS.read_text())
    old = next(each for each in before["rows"] if each["name"] == "next_turn_1024")
    new = Row(**old | {"ours": 0.01234})
    benchmarks.update([new], before["machine"])
    after = benchmarks.json.loads(benchmarks.RESULTS.read_text())
    assert [each for each in after["rows"] if each not in before["rows"]] == [dataclasses.asdict(new)]
    assert [each for each in before["rows"] if each not in after["rows"]] == [old] and after["many"] == before["many"]
    assert "0.0123 s" in benchmarks.PAGE.read_text()
    with pytest.raises(ValueError, match="of another machine"):
        benchmarks.update([new], before["machine"] | {"threads": 99})


def test_a_part_that_is_measured_again_leaves_the_others_as_they_are(copies):
    machine = {"processor": "Another", "threads": 3, "features": {"avx2": True}, "versions": {"torch": "1"}}
    before, page = benchmarks.json.loads(benchmarks.RESULTS.read_text()), benchmarks.PAGE.read_text()
    measured = [row("many_greedy_vs_llamacpp_q8", many.TARGETS[0], "tokens/s", [(100, 40)])]
    benchmarks.write(measured, machine, only_many=True)
    after = benchmarks.json.loads(benchmarks.RESULTS.read_text())
    assert after["many"] == {"machine": machine, "rows": [dataclasses.asdict(measured[0])]}
    assert {k: v for k, v in after.items() if k != "many"} == {k: v for k, v in before.items() if k != "many"}
    assert page.split("<!-- many -->")[0] == benchmarks.PAGE.read_text().split("<!-- many -->")[0]
    assert "calls itself Another, with 3 threads" in benchmarks.PAGE.read_text().split("<!-- many -->")[1]


def test_goals_are_about_the_numbers_of_chats_that_they_name():
    figure = MANY["many_greedy_vs_llamacpp_q8"]
    slow = Row("", many.named(models.SMOLLM2, 8), "tokens/s", 1, 1, 1, 1, 1)
    assert figure.verdict(slow).startswith("MISSED")
    assert not figure.verdict(dataclasses.replace(slow, model=many.named(models.SMOLLM2, 32)))


@pytest.mark.slow
def test_many_chats_give_the_figures_that_they_have(real_model, tmp_path, monkeypatch):
    if missing := transformers_serve.missing():
        lacking(missing)
    for name, value in {"CHATS": {2: 3}, "DECODING": (2,), "NEXT_TURNS": 2, "NEW": 16}.items():
        monkeypatch.setattr(many, name, value)
    for name in ("MAX_PROMPT", "MAX_ANSWER"):
        monkeypatch.setattr(share_gpt, name, 12)
    formats = ("q8",) if models.peers.installed() else ()
    made = models.Models(tmp_path, formats)
    try:
        measured = list(many.many(made, 1, shapes=False))
    finally:
        made.close()
    left_out = () if formats else ("many_greedy_vs_llamacpp_q8", "many_sampling_vs_llamacpp_q8")
    assert {each.name for each in measured} == set(MANY) - set(left_out)
    assert all(each.ours > 0 for each in measured)
