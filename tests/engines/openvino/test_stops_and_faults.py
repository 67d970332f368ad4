"""A stop ends a turn within one pass, in a prompt too; a fault in a pass ends its turn only."""

import gc
import threading
from contextlib import ExitStack

import pytest

pytest.importorskip("openvino")

from parley.engines.openvino import loader
from parley.events import Answer
from parley.messages import Message, build_messages
from tests.conftest import draft, engine, until
from tests.engines.openvino.asking import LONG, SHORT, answer, deltas, has_read_answer
from tests.engines.openvino.passes import watched

PROMPT = [Message("user", "Tell me a story about an owl and a lamp by the river. " * 40)]  # of many pieces
STRATEGIES = {
    "greedy": {},
    "guidance": {"guidance_scale": 2.0, "negative_prompt": "Answer like a pirate. " * 20},
    "beams": {"strategy": "beams"},
    "diverse_beams": {"strategy": "diverse_beams"},
    "contrastive": {"strategy": "contrastive"},
    "dola": {"strategy": "dola"},
    "assisted": {"strategy": "assisted"},
    "universal_assisted": {"strategy": "universal_assisted"},
    "prompt_lookup": {"strategy": "prompt_lookup"},
    "early_exit": {"strategy": "early_exit", "exit_layer": 3},
}


@pytest.fixture
def at_pass():
    """Has something happen at the n-th pass from now of a decoder; gives the passes."""
    with ExitStack() as stack:

        def arrange(decoder, at, happens):
            return stack.enter_context(watched(decoder, lambda count: happens() if count == at else None))

        yield arrange


@pytest.fixture(scope="module")
def own():
    """A Budgie of these tests."""
    return engine()


@pytest.fixture
def decoder(own):
    """Its decoder, none of whose blocks is in use; none may be in use afterwards, garbage collected or not."""
    made = own.loaded.model.decoder
    until(lambda: not own.prefix_cache.is_reading)
    own.prefix_cache.clear()
    gc.disable()
    free = made.pool.num_blocks - 1
    assert made.pool.num_free == free
    yield made
    until(lambda: not own.prefix_cache.is_reading)
    own.prefix_cache.clear()
    until(lambda: made.pool.num_free == free)
    gc.enable()


def fail():
    raise RuntimeError("the library failed")


@pytest.mark.parametrize(
    ("name", "at"),
    [("greedy", 1), *((n, 4) for n in ("greedy", "guidance", "beams", "contrastive", "dola", "assisted"))],
)
def test_a_stop_in_a_long_prompt_ends_it_after_the_pass_that_runs(own, decoder, at_pass, name, at):
    cancel = threading.Event()
    passes = at_pass(decoder, at, cancel.set)
    made = answer(own, PROMPT, cancel, **STRATEGIES[name])
    assert (made.finish, made.usage.new_tokens) == ("stopped", 0)
    assert passes.begun == at


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_stop_in_an_answer_ends_it_after_the_pass_that_runs(own, decoder, at_pass, name):
    cancel = threading.Event()
    passes = at_pass(decoder, 12, cancel.set)
    made = answer(own, SHORT, cancel, max_new_tokens=200, **STRATEGIES[name])
    if made.finish == "end":  # drafted so well that there were no twelve
        assert passes.begun < 12
    else:
        assert (made.finish, passes.begun) == ("stopped", 12)
        assert made.usage.new_tokens > 4 and made.text


def test_what_was_read_before_a_stop_need_not_be_read_again(own, decoder, at_pass):
    cancel = threading.Event()
    at_pass(decoder, 4, cancel.set)
    answer(own, PROMPT, cancel, session="a")
    again = answer(own, PROMPT, session="a")
    assert again.usage.cached_tokens == 4 * decoder.max_rows
    assert again.text == answer(own, PROMPT).text


@pytest.mark.parametrize("name", ["assisted", "universal_assisted", "early_exit"])
def test_a_stop_while_a_draft_or_a_cut_graph_drafts_ends_it_too(own, decoder, at_pass, name):
    answer(own, SHORT, **STRATEGIES[name])  # the cut graph is made
    drafter = own.loaded.model.exit if name == "early_exit" else draft().loaded.model.decoder
    cancel = threading.Event()
    passes = at_pass(drafter, 9, cancel.set)
    made = answer(own, SHORT, cancel, max_new_tokens=200, **STRATEGIES[name])
    assert (made.finish, passes.begun) == ("stopped", 9)


@pytest.mark.parametrize(("name", "at"), [("greedy", 2), ("beams", 2), *((name, 7) for name in STRATEGIES)])
def test_a_fault_in_a_pass_ends_its_turn_and_the_next_one_is_right(own, decoder, at_pass, name, at):
    """The second pass reads the prompt, the seventh is of the answer."""
    values = STRATEGIES[name] | {"no_repeat_ngram_size": 3, "max_new_tokens": 10}
    story = [*LONG[:-1], Message("user", "Tell me a story about an owl.")]
    expected = answer(own, story, **values)
    at_pass(decoder, at, fail)
    said = Answer()
    with pytest.raises(RuntimeError, match="the library failed"):
        for delta in deltas(own, story, session="a", **values):
            said += delta
    assert own.prefix_cache.sequence("a") == ()
    assert decoder.pool.num_free == decoder.pool.num_blocks - 1
    again = answer(own, story, session="a", **values)
    assert (again.text, again.usage.cached_tokens) == (expected.text, 0)


def test_a_fault_of_one_session_costs_no_other_one_anything(own, decoder, at_pass):
    first = answer(own, SHORT, session="a")
    until(lambda: has_read_answer(own, "a"))
    at_pass(decoder, 2, fail)
    with pytest.raises(RuntimeError):
        answer(own, LONG, session="b")
    further = build_messages([SHORT[0]._asdict(), {"role": "assistant", "content": first.text}], "And then?")
    kept, plain = answer(own, further, session="a"), answer(own, further)
    assert kept.usage.cached_tokens > first.usage.prompt_tokens
    assert kept.text == plain.text


def test_a_fault_while_an_answer_is_read_again_costs_nothing_but_that(own, decoder):
    failed = threading.Event()

    def fail_in_reader(_):
        if threading.current_thread().name == "read-answer":
            failed.set()
            fail()

    with watched(decoder, fail_in_reader):
        first = answer(own, SHORT, session="b")
        until(lambda: failed.is_set() and not own.prefix_cache.is_reading)
    further = build_messages([SHORT[0]._asdict(), {"role": "assistant", "content": first.text}], "And then?")
    assert answer(own, further, session="b").text == answer(own, further).text


def test_a_stop_does_not_wait_for_the_compiler(own, decoder, monkeypatch):
    """The graph that it is at takes as long as it takes, but the turn ends."""
    begun, go_on, made = threading.Event(), threading.Event(), []

    class Slow(loader.Decoder):
        def __init__(self, *args):
            begun.set()
            assert go_on.wait(60)
            made.append(super().__init__(*args))

    answer(own, SHORT, strategy="early_exit", exit_layer=3)  # so that layer 2 has to be compiled
    monkeypatch.setattr(loader, "Decoder", Slow)
    cancel, said = threading.Event(), Answer()
    for delta in deltas(own, SHORT, cancel, strategy="early_exit", exit_layer=2):
        if begun.is_set():
            cancel.set()
        said += delta
    assert said.finish == "stopped" and not made and own.loaded.model.exit is None
    go_on.set()
    until(lambda: made)
    monkeypatch.undo()
    assert answer(own, SHORT, strategy="early_exit", exit_layer=2).text == answer(own, SHORT).text
