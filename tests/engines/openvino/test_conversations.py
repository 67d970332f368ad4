"""A conversation is the same, token for token, whether it was kept, given up, read again while idle, or restarted."""

import functools
import threading

import pytest

pytest.importorskip("openvino")

from parley.engines.openvino.turns import TURNS
from parley.messages import build_messages
from tests.conftest import engine, until
from tests.engines.openvino.asking import answer, ids
from tests.engines.openvino.passes import watched

QUESTIONS = [
    "Hello, my name is Maya. Who are you?",
    "Tell me a story about an owl and a lamp.",
    "What is top-p sampling?",
    "Repeat after me: red tea, red tea, green tea.",
    "What is the capital of Japan?",
    "Count to nine.",
    "Which is larger, 12 or 31?",
    "Tell me more about the owl, please.",
    "What colour is the sea?",
    "What is my name?",
]
STRATEGIES = ["greedy", "sampling", "beams", "prompt_lookup", "dola", "early_exit", "assisted", "synthid"]


@functools.cache
def asked(precision):
    return engine(QUANTIZATION=precision)


def is_read(asked_engine, session):
    """Whether the session's last answer is read again, all but a single row, and nobody reads any more."""
    kept = asked_engine.prefix_cache.session(session)
    return kept is not None and len(kept.sequence) - kept.table.length < 2 and not asked_engine.prefix_cache.is_reading


def at_once(model, session, turn):
    return model, session


def when_idle(model, session, turn):
    if turn:
        until(lambda: is_read(model, session))
    return model, session


def cold(model, session, turn):
    return model, f"{session} {turn}"


def given_up(model, session, turn):
    if turn:
        until(lambda: is_read(model, session))
    if turn % 2:
        model.prefix_cache.clear()
    while model.loaded.model.decoder.pool.reclaim():
        assert turn % 2 == 0
    return model, session


def restarted(model, session, turn):
    precision = model.loaded.plan.quantization
    return engine(QUANTIZATION=precision) if turn in (3, 8) else model, session


def talk(way, precision, **values):
    """Ten turns; of each what was said, all its tokens, and how many of the prompt were kept."""
    model, history, turns = asked(precision), [], []
    for turn, question in enumerate(QUESTIONS):
        model, session = way(model, f"{way.__name__} {values}", turn)
        strategy = values or {"strategy": STRATEGIES[turn % len(STRATEGIES)]}
        made = answer(model, build_messages(history, question), session=session, max_new_tokens=12, **strategy)
        turns.append((made.text, ids(model, session), made.usage.cached_tokens))
        history += [{"role": "user", "content": question}, {"role": "assistant", "content": made.text or "."}]
    assert turns[-1][1] and len(turns[-1][1]) > 3 * model.loaded.model.decoder.max_rows
    return turns


@functools.cache
def from_the_beginning(precision, strategy):
    return talk(cold, precision, **({"strategy": strategy} if strategy else {}))


@pytest.mark.parametrize(
    ("precision", "strategy"),
    [
        pytest.param("int8", "", id="int8, another each turn"),
        pytest.param("none", "", id="floats, another each turn", marks=pytest.mark.slow),
        pytest.param("none", "greedy", id="floats, greedy", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("way", [at_once, when_idle, given_up, pytest.param(restarted, marks=pytest.mark.slow)])
def test_ten_turns_are_those_that_are_read_from_the_beginning(way, precision, strategy):
    plain = from_the_beginning(precision, strategy)
    assert not any(cached for *_, cached in plain)
    turns = talk(way, precision, **({"strategy": strategy} if strategy else {}))
    for (text, tokens, _), (expected, read, _) in zip(turns, plain, strict=True):
        assert (text, tokens) == (expected, read)
    cached = [cached for *_, cached in turns]
    if way is when_idle:  # the answer, too, need not be read again
        assert all(cached[i] >= len(plain[i - 1][1]) - 4 for i in range(1, 10))
    elif way is at_once:
        assert all(cached[1:])
    elif way is given_up:
        assert not any(cached)
    else:
        assert [bool(each) for each in cached] == [turn not in (0, 3, 8) for turn in range(10)]


def test_a_turn_that_comes_at_once_reads_the_rest_of_the_answer_together_with_its_question(monkeypatch):
    model, readers = asked("none"), []
    decoder = model.loaded.model.decoder
    monkeypatch.setattr(model.loaded.model.generation_config, "eos_token_id", None)
    said = answer(model, build_messages([], QUESTIONS[1]), session="at once", max_new_tokens=decoder.max_rows + 36)

    def happens(number):
        reader = threading.current_thread().name
        if reader == "read-answer":  # of which a first chunk may be under way when the turn comes
            until(lambda: TURNS.num_running)
        readers.append(reader)

    history = [{"role": "user", "content": QUESTIONS[1]}, {"role": "assistant", "content": said.text}]
    with watched(decoder, happens):
        answer(model, build_messages(history, QUESTIONS[2]), session="at once", max_new_tokens=1)
    assert readers in (["generate"], ["generate"] * 2, ["read-answer", "generate"])


def test_one_thread_reads_all_answers_however_long_turns_go_on():
    """With a thread for each answer, a Space that is never idle would have more and more, all awake at each end."""
    model, sessions = asked("int8"), [f"busy {number}" for number in range(6)]
    until(lambda: not model.prefix_cache.is_reading)
    with TURNS.running():
        for session in sessions:
            answer(model, build_messages([], QUESTIONS[0]), session=session, max_new_tokens=12)
        readers = [each for each in threading.enumerate() if each.name == "read-answer"]
        unread = [model.prefix_cache.session(session).unread for session in sessions]
    assert len(readers) == 1 and all(unread)
    until(lambda: all(is_read(model, session) for session in sessions))
    until(lambda: not any(each.name == "read-answer" for each in threading.enumerate()))
