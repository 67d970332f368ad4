import random

import pytest

from parley.generation.reasoning_parser import ReasoningParser


def read(text, pieces=None, **options):
    """The text and the thought that come out when `text` is fed in those pieces."""
    reader = ReasoningParser(**options)
    out = [reader.feed(piece) for piece in (pieces or [text])] + [reader.feed("", last=True)]
    return "".join(t for t, _ in out), "".join(t for _, t in out)


def splits(text, times=40):
    rng = random.Random(text)
    for _ in range(times):
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(6)))
        yield [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    yield list(text)


CASES = [
    # text, options, expected text, expected thought
    ("plain", {}, "plain", ""),
    (" one leading space goes", {}, "one leading space goes", ""),
    ("\n\n    indented = 1\n", {}, "    indented = 1\n", ""),
    ("    indented = 1\n  x", {}, "    indented = 1\n  x", ""),
    ("<think>\nwell\nwell\n</think>\n\nYes.", {}, "Yes.", "well\nwell"),
    ("\n<think>a</think> b", {}, "b", "a"),
    ("well</think>\n\nYes.", {"in_thought": True}, "Yes.", "well"),
    ("never closed </thi", {"in_thought": True}, "", "never closed </thi"),
    ("<thinking aloud", {}, "<thinking aloud", ""),
    ("a <think> b </think>", {}, "a <think> b </think>", ""),
    ("<thin", {}, "<thin", ""),
    ("one END two", {"stop": ["END"]}, "one ", ""),
    ("one EN", {"stop": ["END"]}, "one EN", ""),
    ("abcabd", {"stop": ["abd"]}, "abc", ""),
    ("aXbYc", {"stop": ["Y", "X"]}, "a", ""),
    ("<think>END</think>no END", {"stop": ["END"]}, "no ", "END"),
    ("ภาษาไทย สวัสดี こんにちは 🦜👩‍🚀", {"stop": ["zz"]}, "ภาษาไทย สวัสดี こんにちは 🦜👩‍🚀", ""),
    ("   ", {}, "", ""),
]


@pytest.mark.parametrize(("text", "options", "expected", "thought"), CASES)
def test_text_and_thought_are_the_same_however_the_pieces_are_cut(text, options, expected, thought):
    for pieces in splits(text):
        assert read(text, pieces, **options) == (expected, thought), pieces


def test_nothing_is_shown_after_a_stop_string():
    reader = ReasoningParser(stop=["END"])
    assert reader.feed("a END b") == ("a ", "")
    assert reader.stopped
    assert reader.feed("more", last=True) == ("", "")


def test_only_what_may_begin_a_mark_is_held_back():
    reader = ReasoningParser(stop=["\n\nUser:"])
    assert reader.feed("Hello.\n") == ("Hello.", "")
    assert reader.feed("\nUs") == ("", "")
    assert reader.feed("ually") == ("\n\nUsually", "")
