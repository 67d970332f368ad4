"""A row's logits are the same, bit for bit, whatever a prompt was cut into, what was drafted, and who is beside it."""

import functools

import pytest

pytest.importorskip("openvino")

import numpy as np
from transformers import AutoConfig

from parley.engines.openvino import batch_invariance, graph
from parley.engines.openvino.batch_invariance import RandomWeights, first_layer
from parley.engines.openvino.decoder import Decoder
from parley.engines.openvino.loader import properties
from parley.engines.openvino.weights import Weights
from parley.models.registry import BUDGIE
from tests.engines.openvino import drawing

SHAPE_OF_QWEN3_06B = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "vocab_size": 151_936,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 28,
    "tie_word_embeddings": True,
}


def decoder_of(config, weights, precision, early=(), threads=2):
    """The decoder of a model as it is loaded, with the rows that are found for it."""
    asked = properties(precision, threads)
    rows = batch_invariance.max_rows(config, precision, asked)
    assert rows > 2
    made = Decoder(graph.write(config, weights, precision, early=early), asked, early, rows)
    made.make_pool(100)
    return made


@functools.cache
def bundled(precision):
    folder = BUDGIE / "weights"
    return decoder_of(AutoConfig.from_pretrained(folder), Weights(folder), precision, early=(2, 5), threads=1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_random_passes_of_the_bundled_model(precision, seed):
    assert drawing.check(bundled(precision), seed) > 60


@pytest.fixture(scope="module")
def real(real_model):
    return decoder_of(AutoConfig.from_pretrained(real_model), Weights(real_model), "int8", early=(10,))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_passes_of_the_real_model(real, seed):
    assert drawing.check(real, seed, prompts=100, answers=6) > 20


@pytest.fixture(scope="module")
def large():
    """One layer and the whole head in the shape of Qwen3 0.6B."""
    config = first_layer(AutoConfig.for_model("qwen3", **SHAPE_OF_QWEN3_06B))
    return decoder_of(config, RandomWeights(config), "int8")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_passes_in_the_shape_of_a_larger_model(large, seed):
    assert drawing.check(large, seed, prompts=80, answers=6) > 20


def test_rounding_would_show():
    """The tests above would mean nothing if a row came out the same by any kernel and in either class."""
    decoder = bundled("float32")
    ids = np.random.default_rng(0).integers(3, 2000, 40).tolist()
    pieces = drawing.read_plainly(decoder, ids, []).logits
    one_by_one = drawing.read_plainly(decoder, ids[:2], ids[2:]).logits
    assert not np.array_equal(pieces, one_by_one)
    assert np.abs(pieces - one_by_one).max() < 1e-2
