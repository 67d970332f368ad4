"""The layers of one byte a weight: near to the floats, the same for a token whoever is beside it, and small."""

import threading
import warnings

import pytest
import torch

from parley import strategies
from parley.engines.base import TurnRequest
from parley.engines.transformers import int8_linear
from parley.messages import Message
from parley.settings import Settings
from tests.conftest import draft, engine
from tests.strategies.loops import LOOPS


@pytest.fixture(scope="module")
def small():
    """Budgie with layers of one byte a weight."""
    return engine(QUANTIZATION="int8", ENGINE="transformers")


def answer(asked_engine, **settings):
    asked = Settings(**({"model": "budgie", "max_new_tokens": 24, "seed": 1} | settings))
    messages = [Message("user", "Say after me: the green owl reads the green book.")]
    helper = draft("transformers") if strategies.find(asked.strategy).drafts else None
    deltas = list(asked_engine.stream(TurnRequest.of(messages, asked, threading.Event(), helper)))
    return "".join(delta.text for delta in deltas if not delta.replaces), deltas[-1]


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_gives_what_the_floats_give_but_for_rounding(bias):
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 512, bias=bias)
    x = torch.randn(2, 5, 256)
    x[0, 0] *= 1000  # one loud token does not spoil the others
    with torch.inference_mode():
        ours, theirs = int8_linear.Int8Linear(linear)(x), linear(x)
    error = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)
    assert ours.shape == theirs.shape
    assert 0 < error.max() < 0.02


def test_a_token_gives_the_same_alone_and_among_others():
    torch.manual_seed(0)
    layer = int8_linear.Int8Linear(torch.nn.Linear(256, 512))
    x = torch.randn(7, 256) * torch.logspace(-2, 2, 7)[:, None]
    with torch.inference_mode():
        together = layer(x)
        assert all(torch.equal(layer(x[i : i + 1])[0], together[i]) for i in range(7))


def test_a_token_of_zeros_gives_the_bias():
    linear = torch.nn.Linear(64, 64)
    with torch.inference_mode():
        assert torch.equal(int8_linear.Int8Linear(linear)(torch.zeros(1, 64))[0], linear.bias)


def test_the_weights_can_still_be_looked_at():
    linear = torch.nn.Linear(128, 64)
    step = linear.weight.abs().amax(1, keepdim=True) / int8_linear.QMAX
    assert ((int8_linear.Int8Linear(linear).weight - linear.weight).abs() <= 0.501 * step).all()


def test_it_needs_less_than_half_of_the_memory(small, torch_budgie):
    def held(model):
        return sum(t.nbytes for t in {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}.values())

    assert held(small.loaded.model) < 0.45 * held(torch_budgie.loaded.model)


def test_it_finds_likely_what_the_floats_find_likely(small, torch_budgie):
    text = "Top-p, or nucleus sampling, keeps the most likely tokens that together reach p. The rest is cut off."
    ids = torch.tensor([torch_budgie.loaded.tokenizer.encode(text)])
    with torch.inference_mode():
        losses = [float(each.loaded.model(ids, labels=ids).loss) for each in (small, torch_budgie)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_drafting_changes_nothing(small):
    greedy, _ = answer(small, strategy="greedy")
    assert greedy
    for strategy in ("prompt_lookup", "assisted", "early_exit"):
        assert answer(small, strategy=strategy)[0] == greedy


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_runs_on_it_without_a_warning(small, name):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*quantiz")
        last = answer(small, strategy=name)[1]
    assert last.finish in ("end", "length")
    assert last.usage.new_tokens > 1
    assert last.run_record.config["engine"] == "PyTorch int8"
    assert last.run_record.program.startswith("# PyTorch int8 answered.")
