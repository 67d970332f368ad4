"""A thought ends when its budget is spent, wherever its marks are, and nothing else changes."""

import pytest
import torch
from transformers import AutoTokenizer

from parley.settings import Settings
from parley.strategies.processors.thinking_budget import ThinkingBudget
from tests.strategies.loops import LOOPS
from tests.strategies.test_registry import answer

OPEN, CLOSE = [7], [8, 9]


def forced(said, tokens=3, opening=OPEN, closing=CLOSE):
    """The one token that may follow a prompt of two tokens and what was said; None if all may."""
    scores = ThinkingBudget(tokens, 2, opening, closing)(torch.tensor([[1, 1, *said]]), torch.zeros(1, 12))
    left = scores[0].isfinite().nonzero()[:, 0].tolist()
    assert len(left) in (1, 12)
    return left[0] if len(left) == 1 else None


@pytest.mark.parametrize(
    ("said", "token"),
    [
        ([7, 2, 2], None),
        ([7, 2, 2, 2], 8),
        ([7, 2, 2, 2, 8], 9),
        ([7, 2, 2, 2, 8, 9], None),
        ([7, 2, 2, 2, 8, 9, 2, 2, 2], None),
        ([7, 2, 2, 8], 9),  # it was about to close by itself
        ([7, 8, 9, 2, 2, 2], None),  # it did
        ([2, 2, 2, 2], None),  # no thought
        ([2, 7, 2, 2, 2, 2], None),  # a mark within the answer opens none
    ],
)
def test_the_closing_mark_comes_when_the_budget_is_spent_and_only_once(said, token):
    assert forced(said) == token


def test_a_thought_that_the_prompt_has_opened_counts_from_its_first_token():
    assert forced([2, 2], opening=[]) is None
    assert forced([2, 2, 2], opening=[]) == 8


def test_each_row_of_a_batch_has_its_own_budget_and_no_score_given_is_changed():
    given = torch.zeros(2, 12)
    ids = torch.tensor([[1, 1, 7, 2, 2, 2], [1, 1, 7, 8, 9, 2]])
    scores = ThinkingBudget(3, 2, OPEN, CLOSE)(ids, given)
    assert scores[0].isfinite().sum() == 1 and scores[1].isfinite().all()
    assert given.isfinite().all()


def test_its_repr_makes_it_again():
    made = ThinkingBudget(3, 2, OPEN, CLOSE)
    assert repr(eval(repr(made))) == repr(made)


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_closes_the_thought_and_goes_on_to_the_answer(budgie, name):
    values = {"strategy": name, "thinking": True, "seed": 5, "max_new_tokens": 60}
    question = "Which is larger, 12 or 31?"
    free, short = (answer(budgie, Settings.check(values | {"thinking_budget": n}), question) for n in (0, 3))
    tokenizer: AutoTokenizer = budgie.loaded.tokenizer
    assert len(tokenizer.encode(free.thought, add_special_tokens=False)) > 3
    assert 0 < len(tokenizer.encode(short.thought, add_special_tokens=False)) <= 3
    assert short.text
