"""The app is well where it made a token within the last minute."""

import threading

import pytest

from parley.serving import turn
from parley.serving.operations import health
from parley.serving.operations.health import Health, make_token
from tests.conftest import Clock, until


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(health, "time", clock)
    return clock


def test_a_token_is_made_when_somebody_asks_and_the_last_one_is_old(clock):
    made = []
    asked = Health(lambda: made.append(1))
    assert asked.is_well() and asked.is_well() and len(made) == 1
    clock.ahead += health.FRESH_SECONDS + 1
    assert asked.is_well() and len(made) == 2


def test_a_model_that_hangs_is_noticed_after_a_minute_and_asked_once(clock, monkeypatch):
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.01)
    hangs, made, go_on = [False], [], threading.Event()

    def make():
        made.append(1)
        if hangs[0]:
            go_on.wait()

    asked = Health(make)
    until(asked.is_well)
    hangs[0] = True
    clock.ahead += health.FRESH_SECONDS + 1
    assert asked.is_well(), "the last token is not that old"
    clock.ahead += health.MAX_AGE_SECONDS
    assert not asked.is_well() and not asked.is_well()
    assert len(made) == 2
    hangs[0] = False
    go_on.set()
    until(asked.is_well)


def test_an_error_is_logged_and_the_app_is_not_well(caplog):
    def make():
        raise RuntimeError("the graph is broken")

    asked = Health(make)
    assert not asked.is_well()
    assert "the graph is broken" in caplog.text
    asked._make = lambda: None
    assert asked.is_well()


def test_the_token_is_a_real_one_and_leaves_nothing_behind(inside):
    decoder = inside.engine("budgie").loaded.model.decoder
    before = decoder.num_passes
    make_token()
    assert decoder.num_passes > before and not turn.running()
