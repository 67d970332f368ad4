"""What comes back from a browser of an answer is read as far as it has the form, and else not at all."""

import pytest

from parley.events import Answer, Usage
from parley.ui import stored_answer
from parley.ui.stored_answer import StoredAnswer

KEPT = {
    "settings": {"model": "budgie", "seed": 7},
    "prompt_ids": [1, 2],
    "ids": [3],
    "system_fingerprint": "fp_1",
    "finish": "length",
    "usage": {"prompt_tokens": 2, "new_tokens": 1, "time_to_first_token": None, "seconds": 0.5},
    "before": {"text": "a", "thought": "b"},
}


def test_it_is_read_as_it_was_written():
    read = stored_answer.read(KEPT)
    assert read.generated == [1, 2, 3] and read.settings == KEPT["settings"] and read.fingerprint == "fp_1"
    assert read.usage == Usage(2, 1, None, 0.5) and read.before == Answer(text="a", thought="b")


@pytest.mark.parametrize(
    "changed",
    [
        {"ids": "3"},
        {"ids": [3.5]},
        {"ids": [True]},
        {"prompt_ids": [[1]]},
        {"prompt_ids": [1] * (stored_answer.MAX_TOKENS + 1)},
        {"settings": 7},
        {"usage": {"nonsense": 1}},
        {"usage": KEPT["usage"] | {"seconds": "<b>"}},
        {"before": "text"},
    ],
    ids=lambda changed: str(changed)[:40],
)
def test_what_does_not_have_the_form_is_nothing(changed):
    assert stored_answer.read(KEPT | changed) == StoredAnswer()


@pytest.mark.parametrize("values", ["", {}, [], "{", None, 7], ids=str)
def test_what_is_no_stored_answer_is_nothing(values):
    read = stored_answer.read(values)
    assert (read.generated, read.settings, read.fingerprint, read.usage) == ([], {}, "", None)
