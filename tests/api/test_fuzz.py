"""Generated calls to every route get an answer, or one sentence that says what is wrong with them."""

import pytest

from tests import fuzz
from tests.conftest import Space

pytestmark = pytest.mark.slow


def test_generated_calls(fuzzed):
    assert {200, 404, 422} <= {*fuzz.run(fuzzed, 800)}


@pytest.fixture
def fuzzed():
    space = Space(MODEL_IDS="parrot,budgie")
    yield space
    space.close()
