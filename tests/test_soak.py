"""One minute of the soak; `python -m tests.soak` is the long one."""

import pytest

from tests import soak


@pytest.mark.slow
def test_a_minute_of_visitors_keeps_all_bounds(inside):
    assert soak.soak(1, inside) == []
