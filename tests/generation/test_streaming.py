"""The streamer and its thread: exact text, errors, brakes, the rhythm of the pieces."""

import itertools
import threading
import time

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from parley.events import Answer, Delta
from parley.generation import streaming
from parley.generation.reasoning_parser import ReasoningParser
from parley.generation.streaming import AnswerStreamer, StopSignal

TEXTS = [
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "こんにちは、カタカナ",
    "🦜👩‍🚀🏳️‍🌈 emoji",
    "https://example.org/a_very/long?path=without&any=space#at-all",
    "def f(x):\n    if x:\n        return [\n            1,\n        ]\n\n\tpass\n",
    "smörgåsbord — naïve “quotes”",
]


def brake(cancel=None, seconds=60.0):
    return StopSignal(cancel or threading.Event(), seconds)


def fed(tokenizer, ids, prompt=(5, 6, 7)):
    """The pieces that each token brings."""
    streamer = AnswerStreamer(tokenizer, prompt, ReasoningParser, brake())
    streamer.put(torch.tensor([list(prompt)]))
    for token in ids:
        streamer.put(torch.tensor([token]))
        pieces = []
        while not streamer.text_queue.empty():
            pieces.append(streamer.text_queue.get().text)
        yield "".join(pieces)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", ["byte-level", "sentencepiece-like"])
def test_every_complete_character_arrives_with_its_last_token(text, family, budgie, sentencepiece_like):
    tokenizer = budgie.loaded.tokenizer if family == "byte-level" else sentencepiece_like
    ids = tokenizer.encode(text, add_special_tokens=False)
    shown = ""
    for count, piece in enumerate(fed(tokenizer, ids), start=1):
        shown += piece
        complete = tokenizer.decode(ids[:count], skip_special_tokens=True)
        if not complete.endswith("\N{REPLACEMENT CHARACTER}"):
            assert shown.lstrip(" ") == complete.lstrip(" ")
        assert text.startswith(shown.lstrip(" "))
    assert shown.removeprefix(" ") == text


def test_a_character_cut_by_the_last_token_is_dropped(budgie):
    tokenizer = budgie.loaded.tokenizer
    ids = tokenizer.encode("ok 𐍈", add_special_tokens=False)
    assert len(ids) >= 3
    assert "".join(fed(tokenizer, ids[:-1])).strip() == "ok"


def test_a_think_tag_that_is_a_special_token_still_opens_a_thought(sentencepiece_like):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(sentencepiece_like.backend_tokenizer.to_str()), eos_token="</s>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids = tokenizer.encode("<think>the fox</think>the dog", add_special_tokens=False)
    streamer = AnswerStreamer(tokenizer, [5], ReasoningParser, brake())
    streamer.put(torch.tensor([5]))
    streamer.put(torch.tensor(ids))
    streamer.close()
    answer = sum_of(streamer)
    assert (answer.thought.strip(), answer.text.strip()) == ("the fox", "the dog")


def sum_of(deltas):
    answer = Answer()
    for delta in deltas:
        answer += delta
    return answer


def streamer_of(budgie, a_brake):
    return AnswerStreamer(budgie.loaded.tokenizer, [5], ReasoningParser, a_brake)


def test_an_exception_in_the_thread_reaches_the_reader_after_what_came_before(budgie):
    cancel = threading.Event()
    a_brake = brake(cancel)
    streamer = streamer_of(budgie, a_brake)

    def work():
        streamer.on_finalized_text("so far")
        raise MemoryError("no room")

    seen = []
    with pytest.raises(MemoryError, match="no room"):
        for delta in streaming.run(work, streamer, a_brake, cancel):
            seen += [delta.text]
    assert "".join(seen) == "so far"


def test_a_waiting_reader_gets_heartbeats_and_closing_cancels_without_waiting(budgie):
    cancel, over, left = threading.Event(), threading.Event(), threading.Event()
    a_brake = brake(cancel)

    def work():
        cancel.wait(90)
        over.wait(90)
        left.set()

    deltas = streaming.run(work, streamer_of(budgie, a_brake), a_brake, cancel)
    assert next(deltas) == Delta()
    deltas.close()
    assert cancel.is_set()
    assert not left.is_set()  # the thread is still at work
    over.set()


def test_pieces_are_gathered_for_50_ms_and_the_last_one_always_comes(budgie):
    a_brake = brake()
    streamer = streamer_of(budgie, a_brake)
    words = [f"w{i} " for i in range(100)]

    def work():
        for word in words:
            streamer.on_finalized_text(word)
            time.sleep(0.003)  # the pace of a fast model

    times, text = [], ""
    for delta in streaming.run(work, streamer, a_brake, threading.Event()):
        times.append(time.monotonic())
        text += delta.text
    assert text == "".join(words)
    between = [b - a for a, b in itertools.pairwise(times)]
    assert all(gap >= streaming.FLUSH * 0.9 for gap in between[:-1])


@pytest.mark.parametrize(("turns", "seconds"), [(0, 0.05), (1, 0.05), (2, 0.05), (4, 0.1), (8, 0.2), (200, 0.2)])
def test_text_is_passed_on_less_often_while_many_turns_run(monkeypatch, turns, seconds):
    monkeypatch.setattr(streaming, "_running", set(range(turns)))
    assert streaming.flush_seconds() == pytest.approx(seconds)


def test_the_reader_is_never_left_with_less_than_was_made_for_longer_than_the_gathering(budgie):
    a_brake, shown = brake(), threading.Event()
    streamer = streamer_of(budgie, a_brake)

    def work():
        streamer.on_finalized_text("first ")
        streamer.on_finalized_text("second")
        assert shown.wait(90), "the second piece waited for a third"

    text = ""
    for delta in streaming.run(work, streamer, a_brake, threading.Event()):
        text += delta.text
        if text == "first second":
            shown.set()
    assert shown.is_set()
