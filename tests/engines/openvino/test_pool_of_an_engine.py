"""A whole engine with few blocks: it answers, gives up what is longest unused, and refuses what does not fit."""

import copy
import dataclasses
import gc
import re
import threading

import pytest

pytest.importorskip("openvino")

from parley.engines.openvino import graph
from parley.engines.openvino.decoder import Decoder
from parley.engines.openvino.engine import OpenVinoEngine
from parley.engines.openvino.loader import properties
from parley.engines.openvino.model_adapter import ModelAdapter
from parley.engines.openvino.paged_kv import BLOCK_SIZE, OutOfBlocks
from parley.engines.openvino.prefix_cache import PagedPrefixCache
from parley.engines.openvino.weights import Weights
from parley.errors import ChatError
from parley.generation.prefix_cache import LeaseRequest
from parley.messages import Message
from tests.conftest import until
from tests.engines.openvino.asking import SHORT, answer, has_read_answer
from tests.engines.openvino.passes import watched

BLOCKS = 14  # one only fills passes: the others hold 32 tokens each
FOUR_BLOCKS = [Message("user", "Tell me a story about an owl and a lamp by the river in the north. " * 6)]


@pytest.fixture
def small(budgie):
    """Budgie with few blocks, of the test's own."""
    loaded = budgie.loaded
    config, numbers = loaded.model.config, loaded.plan.numbers
    written = graph.write(config, Weights(loaded.folder), numbers, early=loaded.model.decoder.early)
    decoder = Decoder(written, properties(numbers, 1), loaded.model.decoder.early, loaded.model.decoder.max_rows)
    decoder.make_pool(BLOCKS)
    model = ModelAdapter(config, decoder)
    model.generation_config = copy.deepcopy(loaded.model.generation_config)
    return OpenVinoEngine(dataclasses.replace(loaded, model=model))


def free(engine):
    gc.collect()
    return engine.loaded.model.decoder.pool.num_free


def test_it_answers_and_gives_up_the_longest_unused_session(small, budgie):
    expected = answer(budgie, FOUR_BLOCKS).text
    for session in "abac":  # b is now the longest unused
        assert answer(small, FOUR_BLOCKS, session=session).text == expected
        until(lambda session=session: has_read_answer(small, session))
    assert [bool(small.prefix_cache.sequence(session)) for session in "abc"] == [True, False, True]
    assert answer(small, FOUR_BLOCKS, session="a").usage.cached_tokens > 100
    again = answer(small, FOUR_BLOCKS, session="b")
    assert (again.text, again.usage.cached_tokens) == (expected, 0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["greedy", "beams", "early_exit"])
def test_what_does_not_fit_is_refused_with_a_sentence_and_takes_nothing(small, budgie, strategy):
    answer(small, SHORT, session="a")
    long = [Message("user", "owl " * 600)]
    sentence = r"is used up: it has room for ([\d,]+) tokens, and this answer needs ([\d,]+)\. Ask for fewer beams"
    with pytest.raises(ChatError, match=sentence) as refusal:
        answer(small, long, session="b", strategy=strategy)
    room, needed = (int(number.replace(",", "")) for number in re.search(sentence, str(refusal.value)).groups())
    assert room == (BLOCKS - 1) * BLOCK_SIZE < needed
    assert small.prefix_cache.sequence("b") == ()
    assert free(small) == BLOCKS - 1  # what others had was given up in vain
    assert answer(small, SHORT, session="b", strategy=strategy).text == answer(budgie, SHORT, strategy=strategy).text


@pytest.mark.slow
def test_an_answer_that_outgrows_the_memory_ends_with_the_sentence_and_the_next_turn_has_it_all(small, budgie):
    beams = {"strategy": "beams", "num_beams": 8, "max_new_tokens": 200, "length_penalty": 2.0}
    with pytest.raises(OutOfBlocks):
        answer(small, FOUR_BLOCKS, session="a", **beams)
    # Not when the interpreter happens to collect its garbage, but at once.
    assert small.loaded.model.decoder.pool.num_free == BLOCKS - 1
    assert answer(small, FOUR_BLOCKS, session="a").text == answer(budgie, FOUR_BLOCKS).text


def test_the_size_of_the_pool_counts_and_what_was_never_written_is_untouched(small):
    pool = small.loaded.model.decoder.pool
    weights = small.loaded.model.get_memory_footprint()
    assert small.memory_bytes == weights + BLOCKS * pool.bytes_per_block
    assert small.unwritten_bytes == (BLOCKS - 1) * pool.bytes_per_block
    answer(small, FOUR_BLOCKS)
    assert (BLOCKS - 8) * pool.bytes_per_block < small.unwritten_bytes < (BLOCKS - 3) * pool.bytes_per_block
    before = small.unwritten_bytes
    answer(small, FOUR_BLOCKS)
    assert small.unwritten_bytes == before


def test_sessions_share_no_block(small):
    for session in "ab":
        answer(small, FOUR_BLOCKS, session=session)
        until(lambda session=session: has_read_answer(small, session))
    one, other = (set(small.prefix_cache.session(session).table.blocks) for session in "ab")
    assert one and other and not one & other
    assert not any(small.loaded.model.decoder.pool.num_users(block) > 1 for block in one | other)


def test_what_a_turn_has_is_not_given_up(small):
    cache = PagedPrefixCache(small.loaded.model.decoder)
    pool, prompt = small.loaded.model.decoder.pool, list(range(100, 170))

    def acquire(session):
        return cache.acquire(LeaseRequest(session, prompt, 1, 100, lambda: []))

    for session in "ab":
        with acquire(session) as loan:
            loan.arguments["past_key_values"].tables[0].reserve(70)
            loan.arguments["past_key_values"].tables[0].length = 70
    with acquire("a") as loan:
        [table] = loan.arguments["past_key_values"].tables
        assert loan.cached_tokens == 68
        assert pool.reclaim() and cache.sequence("b") == ()
        assert not pool.reclaim()
        cache.clear()
        assert table.length == 68 and len(table.blocks) == 3
    assert cache.sequence("a") == prompt
    until(pool.reclaim)  # the end of its prompt may be being read
    assert cache.sequence("a") == ()


def test_a_session_that_is_being_read_is_not_given_up_and_its_next_turn_waits(small):
    decoder, prefixes = small.loaded.model.decoder, small.prefix_cache
    answer(small, SHORT, session="other")
    until(lambda: has_read_answer(small, "other"))
    expected = answer(small, SHORT, session="a")
    until(lambda: has_read_answer(small, "a"))
    again = [*SHORT, Message("assistant", expected.text), Message("user", "Why?")]
    plain = answer(small, again).text
    prefixes.session("a").table.crop(20)  # as if that were all that was read
    prefixes.session("a").unread = True
    begun, go_on, made = threading.Event(), threading.Event(), []

    def hold(_):
        begun.set()
        assert go_on.wait(90)

    with watched(decoder, hold):
        reader = threading.Thread(target=prefixes.read_chunk, daemon=True)
        reader.start()
        assert begun.wait(90)
        assert decoder.pool.reclaim() and not decoder.pool.reclaim()
        prefixes.clear()
        assert prefixes.sequence("other") == () and prefixes.sequence("a")
        asker = threading.Thread(target=lambda: made.append(answer(small, again, session="a")), daemon=True)
        asker.start()
        asker.join(0.3)  # time in which it could take the session, if it did not wait
        assert prefixes.sequence("a") and not made
        go_on.set()
        for thread in (reader, asker):
            thread.join(90)
    assert made[0].text == plain and made[0].usage.cached_tokens > 20
