"""The repetition penalty is that of transformers, except for the tokens that end a turn."""

import torch
from transformers import RepetitionPenaltyLogitsProcessor

from parley.strategies.processors.repetition_penalty import RepetitionPenalty

IDS = torch.tensor([[3, 7, 3, 9], [1, 1, 7, 0]])
SCORES = torch.linspace(-4, 4, 12).repeat(2, 1)


def test_without_spared_tokens_it_is_that_of_transformers():
    assert RepetitionPenalty(1.3, [])(IDS, SCORES).equal(RepetitionPenaltyLogitsProcessor(1.3)(IDS, SCORES))


def test_spared_tokens_keep_their_logits_and_the_others_do_not():
    penalised = RepetitionPenalty(1.3, [7, 0])(IDS, SCORES)
    assert penalised[:, [7, 0]].equal(SCORES[:, [7, 0]])
    assert penalised[0, 3] < SCORES[0, 3] and penalised[0, 9] < SCORES[0, 9] and penalised[1, 1] < SCORES[1, 1]
