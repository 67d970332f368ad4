"""What the sampler leaves out changes nothing."""

import pytest
import torch

from parley.strategies.decoders.sampling import highest


@pytest.mark.parametrize("size", [30, 4_096, 49_152, 49_159])
@pytest.mark.parametrize("levels", [3, 40, 10**6])  # few: most scores are equal
def test_the_highest_scores_are_those_of_the_whole_vocabulary(size, levels):
    generator = torch.Generator().manual_seed(size + levels)
    scores = torch.randint(levels, (size,), generator=generator).float()
    scores[torch.rand(size, generator=generator) < 0.2] = -torch.inf
    scores[-1] = scores.max() + 1
    for count in (1, 20, 29):
        found, tokens = highest(scores, count)
        assert torch.equal(found, scores.topk(count).values) and torch.equal(scores[tokens], found)
        assert len(set(tokens.tolist())) == count
