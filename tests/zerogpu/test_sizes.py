"""The seconds that a turn asks for are those that ZeroGPU counts, with both sizes of its cards of today."""

import pytest
from playwright.sync_api import expect

from tests.browser import Visitor
from tests.zerogpu.conftest import ZeroGpuSpace

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

MAX_SECONDS = 120  # a day, of a visitor who is not signed in


@pytest.mark.parametrize("size", ["", "xlarge"], ids=["large", "xlarge"])
def test_an_answer_is_shown_and_ended_by_the_seconds_that_zerogpu_counts(tmp_path, chromium, size):
    zero = ZeroGpuSpace(tmp_path, ZEROGPU_SIZE=size)
    try:
        visitor = Visitor(chromium, zero.url)
        for tokens in (8, 4000):
            visitor.limit(tokens)
            visitor.ask("Hello, who are you?")
            visitor.quiet.click()
            counted = int(zero.api.asked("/schedule")[-1]["durationSeconds"])
            assert counted < 10 if tokens == 8 else MAX_SECONDS - 1 <= counted <= MAX_SECONDS
            assert zero.api.asked("/schedule")[-1].get("gpuSize", "") == size
            expect(visitor.folded.last).to_contain_text(f"Requested GPU time: {counted} s")
        visitor.close()
    finally:
        zero.close()
