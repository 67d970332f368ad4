"""In which numbers a model is loaded, by what the machine has and the owner wants; figures before loading."""

import pytest
import torch

from parley.engines import hardware, plan
from parley.engines.hub import ModelRow
from parley.errors import ModelUnavailable

ROW = ModelRow("some/model", "some/model", "Some model")
CONFIG = {"dtype": "bfloat16", "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
CONFIG |= {"head_dim": 128, "hidden_size": 1024}
LARGE, SMALL = 1_200_000_000, 6_000_000  # bytes: 600 M and 3 M parameters
AMPLE = 10**12


@pytest.fixture(params=["vnni", "plain"])
def cpu(request, monkeypatch):
    monkeypatch.setattr(hardware, "device", lambda: "cpu")
    monkeypatch.setattr(hardware, "multiplies_bytes", lambda: request.param == "vnni")
    return request.param


def decided(size=LARGE, free=AMPLE, config=CONFIG, **environ):
    return plan.decide(ROW, config, size, lambda need: free, environ)


def test_a_cpu_with_the_instructions_takes_one_byte_a_weight_where_it_pays(cpu):
    assert decided().quantization == ("int8" if cpu == "vnni" else "none")
    assert decided(SMALL).quantization == "none"
    assert decided(SMALL).dtype == torch.float32


def test_the_owner_decides(cpu):
    assert decided(QUANTIZATION="none").dtype == torch.float32
    assert decided(SMALL, QUANTIZATION="int8").quantization == "int8"
    assert decided(QUANTIZATION="") == decided(QUANTIZATION="auto") == decided()


def test_what_does_not_fit_in_floats_is_loaded_in_half_of_them(cpu):
    assert decided(free=2_000_000_000, QUANTIZATION="none").dtype == torch.bfloat16


def test_weights_that_are_quantised_already_stay_as_they_are(cpu):
    fit = decided(config=CONFIG | {"quantization_config": {"bits": 4}}, QUANTIZATION="int8")
    assert (fit.dtype, fit.quantization) == ("auto", "none")


@pytest.mark.parametrize(
    ("wanted", "sentence"), [("int3", "one of auto, none, int8, int4"), ("int4", "needs a GPU"), ("INT8", "one of")]
)
def test_what_cannot_be_had_is_said_with_what_can(cpu, wanted, sentence):
    with pytest.raises(ModelUnavailable, match=sentence):
        decided(QUANTIZATION=wanted)


def test_what_does_not_fit_is_refused_with_both_figures(cpu):
    with pytest.raises(ModelUnavailable, match=r"needs about 1\.4 GB of memory, and 1\.0 GB are free"):
        decided(free=1_000_000_000, QUANTIZATION="int8")


def test_the_plan_says_what_it_takes_in_one_line(cpu):
    fit = decided(QUANTIZATION="int8")
    assert fit.sentence == "CPU, int8: about 1.4 GB of memory, 229 MB more for each 1,000 tokens."
    assert decided(config={}, QUANTIZATION="none").sentence == "CPU, 32-bit floats: about 2.9 GB of memory."


@pytest.mark.parametrize(("installed", "wanted"), [(True, "auto"), (True, "int4"), (False, "int4"), (False, "auto")])
def test_on_a_gpu_bits_and_bytes_are_taken_where_they_are_installed(monkeypatch, installed, wanted):
    monkeypatch.setattr(hardware, "device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: installed or None)
    assert decided().dtype == torch.bfloat16
    if installed:
        assert decided(free=700_000_000, QUANTIZATION=wanted).quantization == "int4"
    else:
        sentence = "pip install bitsandbytes" if wanted == "int4" else "needs about 1.4 GB"
        with pytest.raises(ModelUnavailable, match=sentence):
            decided(free=700_000_000, QUANTIZATION=wanted)


def test_a_plan_knows_the_keys_and_values_of_a_thousand_tokens(budgie):
    text = budgie.loaded.model.config
    ids = torch.ones(1, 100, dtype=torch.long)
    with torch.inference_mode():
        cache = budgie.loaded.model(ids, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert plan.kv_bytes(text.to_dict(), 4) == 10 * held
