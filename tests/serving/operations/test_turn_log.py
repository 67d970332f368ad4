"""Each turn has a line and is counted, however it ends; no word of it is in either."""

import json
import logging

import pytest

from parley.errors import BadSetting, TurnRefused
from parley.events import Delta, Usage
from parley.serving.operations import turn_log
from parley.serving.operations.metrics import METRICS, Metrics
from parley.serving.operations.turn_log import TurnRecord

SECRET = "xyzzy-nonce"


def lines(caplog):
    return [json.loads(each.message) for each in caplog.records if each.name == "parley.turns"]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, "length"),
        (GeneratorExit(), "left"),
        (BadSetting(SECRET), "refused"),
        (TurnRefused(SECRET, "busy", 3), "busy"),
        (RuntimeError(SECRET), "failed"),
    ],
)
def test_a_line_says_how_a_turn_ended_and_what_it_took(caplog, error, ending):
    caplog.set_level(logging.INFO, "parley")
    record = TurnRecord(["budgie"])
    record.began = record.entered + 1.5
    record.saw(Delta(text=SECRET))
    record.saw(Delta(finish="length", usage=Usage(30, 12, 0.1, 2.0, cached_tokens=10)))
    record.write(error)
    (line,) = lines(caplog)
    assert line["ending"] == ending and (line["read"], line["cached"], line["made"]) == (20, 10, 12)
    assert line["waited"] == 1.5 and line["first"] is not None and line["model"] == "budgie"
    assert SECRET not in caplog.text + METRICS.text({})


def test_the_text_is_that_of_prometheus():
    metrics = Metrics()
    metrics.add("parley_turns_total", model='a "b"\n', ending="end")
    metrics.add("parley_turns_total", model='a "b"\n', ending="end")
    for seconds in (0.05, 0.1, 0.2, 1000.0):
        metrics.first_token(seconds)
    text = metrics.text({"parley_waiting": ("Who waits.", [({}, 3)])})
    for line in (
        *('parley_turns_total{ending="end",model="a \\"b\\"\\n"} 2.0', "# TYPE parley_turns_total counter"),
        *('parley_first_token_seconds_bucket{le="0.1"} 2', 'parley_first_token_seconds_bucket{le="+Inf"} 4'),
        *("parley_first_token_seconds_sum 1000.35", "parley_first_token_seconds_count 4", "parley_waiting 3"),
    ):
        assert line in text.splitlines()


def test_progress_bars_are_off_where_no_terminal_shows_them(monkeypatch):
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    turn_log.configure()
    assert turn_log.os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
