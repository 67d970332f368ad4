"""The layers of half a byte a weight: nearer to the floats than a step, the same for a token whoever is beside it."""

import threading

import pytest
import torch

from parley import catalog
from parley.engines import hardware, int4
from parley.engines.int8 import Int8Linear
from parley.engines.loading import load
from parley.engines.local import LocalEngine
from tests.test_int8 import answer

if not hardware.machine().unpacks_nibbles:
    pytest.skip("for processors with AVX2", allow_module_level=True)


@pytest.fixture(scope="module")
def tiny():
    """Budgie with layers of half a byte a weight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTIZATION", "int4")
        return LocalEngine(load(catalog.find("budgie"), lambda _: None, threading.Event()))


@pytest.mark.parametrize("bias", [False, True])
def test_the_weights_are_next_to_the_floats(bias):
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 512, bias=bias)
    groups = linear.weight.view(512, -1, int4.GROUP)
    step = (groups.amax(-1) - groups.amin(-1)) / int4.STEPS
    with torch.inference_mode():
        off = (int4.Int4Linear(linear).weight - linear.weight).abs().view(512, -1, int4.GROUP)
    assert (off <= 0.6 * step[..., None]).all()  # a half, and what bfloat16 rounds


def test_a_layer_gives_what_its_weights_say():
    torch.manual_seed(0)
    layer, x = int4.Int4Linear(torch.nn.Linear(256, 512)), torch.randn(2, 5, 256)
    with torch.inference_mode():
        ours, theirs = layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert (ours - theirs).norm() < 0.005 * theirs.norm()


def test_a_token_gives_the_same_alone_and_among_others():
    torch.manual_seed(0)
    layer, x = int4.Int4Linear(torch.nn.Linear(256, 512)), torch.randn(7, 256)
    with torch.inference_mode():
        together = layer(x)
        assert all(torch.equal(layer(x[i : i + 1])[0], together[i]) for i in range(7))


def test_shapes_that_do_not_suit_and_the_head_get_one_byte(tiny):
    assert [type(int4.narrow(torch.nn.Linear(*shape))) for shape in ((96, 80), (80, 96), (96, 72))] == [
        int4.Int4Linear,
        Int8Linear,
        Int8Linear,
    ]
    model = tiny.loaded.model
    assert type(model.lm_head) is Int8Linear
    assert {type(layer.mlp.up_proj) for layer in model.model.layers} == {int4.Int4Linear}


def test_it_finds_likely_what_the_floats_find_likely(tiny, budgie):
    texts = ("Top-p, or nucleus sampling, keeps the most likely tokens that together reach p. The rest is cut off.",)
    texts += ("I am Budgie, a tiny demonstration model. I have a few million parameters and know little.",)
    texts += ("The capital of Japan is Tokyo.", "You like the otter. Hi Maya, nice to meet you!")

    def loss(engine):
        ids = [torch.tensor([budgie.loaded.tokenizer.encode(text)]) for text in texts]
        return sum(float(engine.loaded.model(each, labels=each).loss) for each in ids) / len(ids)

    with torch.inference_mode():
        assert loss(tiny) == pytest.approx(loss(budgie), rel=0.05)
        assert loss(tiny) != loss(budgie)


def test_guessing_ahead_changes_nothing(tiny):
    greedy, last = answer(tiny, strategy="greedy")
    assert greedy
    assert last.ran.config["engine"] == "PyTorch int4"
    for strategy in ("prompt_lookup", "assisted", "early_exit"):
        assert answer(tiny, strategy=strategy)[0] == greedy
