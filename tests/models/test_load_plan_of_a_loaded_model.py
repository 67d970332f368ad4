"""What is planned for a model is what it takes once it is loaded."""

import threading

import pytest
import torch

from parley.engines.loader import load
from parley.engines.openvino.paged_kv import BLOCK_SIZE
from parley.models import load_plan
from parley.models.spec import ModelSpec
from tests.conftest import engine
from tests.standins.hub import WEIGHTS, save_tiny_model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "transformers"])
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_weights_take_what_the_plan_says(tmp_path, name, quantization, tied, monkeypatch):
    monkeypatch.setenv("QUANTIZATION", quantization)
    monkeypatch.setenv("ENGINE", name)
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 8}
    folder = save_tiny_model(tmp_path / "model", tie_word_embeddings=tied, **sizes)
    loaded = load(ModelSpec("m", str(folder), "Tiny"), lambda _: None, threading.Event())
    assert loaded.plan.quantization == quantization
    held, planned = loaded.model.get_memory_footprint(), loaded.plan.weights
    if name == "openvino":  # the same for each layer besides, which is most of a model this small
        held, planned = held - load_plan.openvino_bytes(0, 8), planned - load_plan.openvino_bytes(0, 8)
    assert held == pytest.approx(planned, rel=0.05)
    if name == "transformers":  # which holds the stored weights while it makes them smaller
        assert (folder / WEIGHTS).stat().st_size * 1.2 <= loaded.plan.need + 10_000


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_plan_knows_the_keys_and_values_of_openvino(quantization):
    loaded = engine(QUANTIZATION=quantization).loaded
    assert loaded.plan.cache * BLOCK_SIZE == 1000 * loaded.model.decoder.pool.bytes_per_block


def test_a_plan_knows_the_keys_and_values_of_a_thousand_tokens(torch_budgie):
    text = torch_budgie.loaded.model.config
    ids = torch.ones(1, 100, dtype=torch.long)
    with torch.inference_mode():
        cache = torch_budgie.loaded.model(ids, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert load_plan.kv_bytes(text.to_dict(), 4) == 10 * held
