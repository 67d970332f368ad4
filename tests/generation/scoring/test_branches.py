"""An answer goes on from another token: with the token that was chosen it is the same answer.

But for beam searches, which then look for the best answer among those that begin so.
"""

import threading

import pytest

pytest.importorskip("openvino")

from parley.engines.base import TurnRequest
from parley.events import Answer
from parley.settings import Settings
from parley.strategies import STRATEGIES
from tests.conftest import Passes, draft
from tests.engines.openvino.asking import answer
from tests.generation.scoring.test_token_scores import asked, loaded, scored, values_of

PLACE = 9  # of the token from which an answer goes on

# Speculative sampling keeps the distribution, but draws for drafts too, so that its seed does not stand for one text.
SEEDED = [n for n, row in STRATEGIES.items() if "on_beams" not in row.events and n != "speculative_sampling"]


def from_token(model, made, messages, values, token):
    """The answer that has the tokens of `made` up to `PLACE`, and then this one."""
    settings = Settings.check(values)
    helper = draft() if STRATEGIES[settings.strategy].drafts else None
    given = [*made.ids[:PLACE], token]
    known = {"generated": made.origin.prompt_ids, "given": given}
    request = TurnRequest.of(messages, settings, threading.Event(), helper, **known)
    return sum(model.stream(request), Answer())


@pytest.mark.parametrize(
    "name", ["floats", *(pytest.param(n, marks=pytest.mark.slow) for n in ("int8", "transformers"))]
)
@pytest.mark.parametrize("strategy", SEEDED)
def test_from_its_own_token_an_answer_goes_on_as_it_did(strategy, name):
    model = loaded(name)
    made = answer(model, asked(1), **(values := values_of(strategy, 1)))
    again = from_token(model, made, asked(1), values, made.ids[PLACE])
    assert again.ids == made.ids and again.text == made.text


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_from_another_token_it_goes_on_otherwise(strategy):
    model = loaded("floats")
    made = answer(model, asked(1), **(values := values_of(strategy, 1)))
    score = scored(model, made, asked(1), values)[PLACE]
    removed = [each for each in score.candidates if each.removed_by]
    other = next(
        each for each in (*removed, *score.candidates) if each.id != score.id
    )  # a removed one if there is one
    again = from_token(model, made, asked(1), values, other.id)
    assert again.ids[: PLACE + 1] == (*made.ids[:PLACE], other.id)
    assert len(again.ids) > PLACE + 1 or again.finish == "end"
    assert again.origin.given == again.ids[: PLACE + 1]


def test_a_thought_goes_on_too_and_is_shown_as_one():
    model = loaded("floats")
    values = values_of("sampling", 1) | {"answer_start": ""}
    made = answer(model, asked(1), **values)
    opening = model.loaded.tokenizer.encode("<think>", add_special_tokens=False)
    request = TurnRequest.of(asked(1), Settings.check(values), threading.Event(), given=opening)
    again = sum(model.stream(request), Answer())
    assert again.thought and not again.text and again.ids != made.ids
    shown = model.choices(
        TurnRequest.of(asked(1), Settings.check(values), threading.Event(), generated=again.origin.prompt_ids),
        again.ids,
    )
    assert "".join(each.text for each in shown.answer).startswith("<think>")
    assert [each.id for each in shown.answer] == list(again.ids)


def test_given_tokens_are_read_many_in_a_pass():
    model = loaded("floats")
    made = answer(model, asked(1), **(values := values_of("sampling", 1) | {"max_new_tokens": 60}))
    request = TurnRequest.of(asked(1), Settings.check(values), threading.Event(), given=made.ids)
    with Passes(model.loaded.model) as passes:
        again = sum(model.stream(request), Answer())
    assert again.ids == made.ids and passes.count < len(made.ids) / 3
