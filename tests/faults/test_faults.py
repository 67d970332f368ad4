"""Each fault of the table, brought about for real: the one right sentence, the text kept, the next turn answered."""

import logging
import re

import httpx2
import pytest

from tests.faults.table import FAULTS
from tests.faults.world import NONCE

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def log():
    """All lines that the app in this process would write during these tests."""
    lines, root = [], logging.getLogger()
    handler = logging.Handler(logging.INFO)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    handler.emit = lambda record: lines.append(handler.format(record))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


def pattern(sentence):
    """The sentence as a pattern, in which a … stands for anything."""
    return ".*".join(map(re.escape, sentence.split("…")))


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_sentence_keeps_the_text_and_the_next_turn_is_answered(world, name):
    fault = FAULTS[name]
    with fault.happens(world) as (now, then):
        told = now()
        assert re.fullmatch(pattern(fault.sentence), told.sentence), told
        assert bool(told.text) == fault.keeps, told
        following = then()
        assert following.text and not following.sentence, following


def test_there_are_at_least_thirty():
    assert len(FAULTS) >= 30


def test_after_all_of_them_no_word_is_in_a_log_or_a_metric(world, log):
    spaces = [each for each in world.spaces if each.process.poll() is None]
    texts = [*log, *(each.output() for each in world.spaces)]
    texts += [httpx2.get(f"{url}/metrics").text for url in (world.inside.url, *(each.url for each in spaces))]
    assert any("a turn failed" in text for text in log)
    assert not [text for text in texts if NONCE in text]
