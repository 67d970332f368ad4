"""What the sampler leaves out changes nothing, nor does what is drawn ahead."""

import os
import random
import subprocess
import sys

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from parley.strategies.decoders import sampling
from parley.strategies.decoders.sampling import Sampler, highest

SAID = torch.tensor([[1, 2, 3]])
FEW = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.9)])
MANY = LogitsProcessorList([TemperatureLogitsWarper(0.7)])  # for which `torch.multinomial` draws


@pytest.mark.parametrize("size", [30, 4_096, 49_152, 49_159])
@pytest.mark.parametrize("levels", [3, 40, 10**6])  # few: most scores are equal
def test_the_highest_scores_of_the_whole_vocabulary_are_among_them_and_all_that_are_equal(size, levels):
    generator = torch.Generator().manual_seed(size + levels)
    scores = torch.randint(levels, (size,), generator=generator).float()
    scores[torch.rand(size, generator=generator) < 0.2] = -torch.inf
    scores[-1] = scores.max() + 1
    for count in (1, 20, 29):
        found = torch.from_numpy(highest(scores.numpy(), count))
        least = scores.topk(count).values[-1]
        assert {*(scores >= max(least, -1e30)).nonzero()[:, 0].tolist()} <= {*found.tolist()}
        assert torch.equal(found, found.unique()) and scores[found].isfinite().all()


def test_few_more_are_looked_at_than_are_asked_for():
    scores = torch.randn(49_152, generator=torch.Generator().manual_seed(0))
    assert len(highest(scores.numpy(), 50)) < 75


def test_nothing_is_found_where_everything_is_forbidden():
    assert len(highest(torch.full((4_096,), -torch.inf).numpy(), 50)) == 0


class Changing(Sampler):
    """A sampler whose processors change, and that keeps what it has drawn ahead."""

    def change(self, processors):
        kept, drew = self._uniform, self._drew_uniform
        super().__init__(processors, True, self._generator)
        self._uniform, self._drew_uniform = kept, drew


def test_draws_ahead_are_those_of_torch_and_leave_the_generator_as_torch_does():
    """Also where one draw is from few candidates and the next one from the whole vocabulary."""
    chance, numbers = random.Random(0), torch.Generator().manual_seed(0)
    for size in (2500, 4000):  # of the vocabulary
        ours, theirs = torch.Generator().manual_seed(size), torch.Generator().manual_seed(size)
        sampler = Changing(FEW, True, ours)
        for _ in range(60):
            chosen, logits = chance.choice([FEW, FEW, FEW, MANY]), 3.0 * torch.randn(1, size, generator=numbers)
            sampler.change(chosen)
            expected = int(torch.multinomial(chosen(SAID, logits).softmax(-1), 1, generator=theirs))
            assert sampler(SAID, logits) == expected
            sampler.draw_ahead()
        sampler._uniform.take_back()
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_the_global_generator_is_not_drawn_from_ahead():
    torch.manual_seed(3)
    sampler, logits = Sampler(FEW, True), torch.randn(1, 2500)
    sampler(SAID, logits)
    before = torch.get_rng_state()
    sampler.draw_ahead()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fault_while_drawing_ahead_is_told_to_its_request_and_others_go_on(monkeypatch):
    logits = torch.randn(1, 2500, generator=torch.Generator().manual_seed(1))
    faulty, other = (Sampler(FEW, True, torch.Generator().manual_seed(1)) for _ in range(2))
    faulty(SAID, logits)
    with monkeypatch.context() as patched:
        patched.setattr(sampling._Uniform, "_draw", lambda self: (_ for _ in ()).throw(MemoryError("none is left")))
        faulty.draw_ahead()
        with pytest.raises(MemoryError, match="none is left"):
            faulty(SAID, logits)
    first = other(SAID, logits)
    other.draw_ahead()
    second = other(SAID, logits)
    fresh = Sampler(FEW, True, torch.Generator().manual_seed(1))
    assert [first, second] == [fresh(SAID, logits), fresh(SAID, logits)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_draws_ahead_too():
    """The thread that draws is not in the child."""
    script = """
import os, torch
from tests.strategies.decoders.test_sampling import FEW, SAID
from parley.strategies.decoders.sampling import Sampler
logits = torch.randn(1, 2500)
def draw():
    sampler = Sampler(FEW, True, torch.Generator().manual_seed(1))
    drawn = []
    for _ in range(3):
        drawn.append(sampler(SAID, logits))
        sampler.draw_ahead()
    return drawn
drawn = draw()
if child := os.fork():
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
else:
    os._exit(0 if draw() == drawn else 1)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
