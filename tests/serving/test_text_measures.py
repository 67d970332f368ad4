"""How much a text repeats, against figures that were counted by hand."""

import pytest

from parley.serving.text_measures import distinct, repeated, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The owl, the OWL!", ["the", "owl", ",", "the", "owl", "!"]),
        ("it's Nino\u2019s", ["it's", "nino\u2019s"]),
        ("\u6708\u4eae\u5f88 ok \u3042", ["\u6708", "\u4eae", "\u5f88", "ok", "\u3042"]),
        ("  \n", []),
    ],
)
def test_words_are_counted_in_any_script(text, found):
    assert words(text) == found


def test_runs_are_counted_as_in_the_papers():
    found = words("a b a b a b c")  # pairs: ab ba ab ba ab bc; fours: abab baba abab babc
    assert distinct(found, 2) == 3 / 6
    assert repeated(found, 4) == pytest.approx(1 / 4)
    assert repeated(words("one two three four five"), 4) == 0


def test_a_text_without_a_run_has_no_share():
    assert distinct(["one"], 2) is None and repeated(words("one two three"), 4) is None
