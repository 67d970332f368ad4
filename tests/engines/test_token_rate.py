"""The tokens a second of all turns of a model."""

import pytest

from parley.engines import token_rate
from parley.engines.token_rate import WINDOW_SECONDS, TokenRate
from tests.conftest import Clock


def test_the_rate_is_that_of_the_last_seconds(monkeypatch):
    clock, rate = Clock(), TokenRate()
    monkeypatch.setattr(token_rate, "time", clock)
    assert rate.per_second == 0
    for _ in range(40):
        rate.count()
        clock.ahead += 0.1
    assert rate.per_second == pytest.approx(10, rel=0.05)
    clock.ahead += WINDOW_SECONDS
    assert rate.per_second == 0
