"""The expected speed of a model, beside what was measured on two machines of two cores."""

import pytest

from parley.models import load_plan
from parley.models.catalogue import speed
from parley.models.catalogue.rows import REAL
from parley.models.hardware import Machine
from tests.engines.openvino.test_published_configs import PUBLISHED

VNNI, AVX2 = Machine("cpu", threads=2, has_vnni=True), Machine("cpu", threads=2)
TWO_CORES = 21e9  # bytes that two cores of a busy machine read in a second


def expected(name, here, bandwidth=TWO_CORES, **environ):
    spec = next(row for row in REAL if row.label == name)
    config = PUBLISHED[spec.id]
    estimate = load_plan.choose_load_plan(spec, config, spec.bytes, lambda _: 10**11, here=here, environ=environ)
    parameters = speed.read_parameters(spec, config, spec.bytes)
    return speed.tokens_per_second(estimate.plan, parameters, speed.layers(config), here, bandwidth)


@pytest.mark.parametrize(
    ("name", "here", "measured"),
    [("SmolLM2 135M", VNNI, 57), ("Qwen3 0.6B", VNNI, 17), ("SmolLM2 135M", AVX2, 46), ("Qwen3 0.6B", AVX2, 14)],
)
def test_it_is_near_what_was_measured(name, here, measured):
    assert expected(name, here) == pytest.approx(measured, rel=0.15)


def test_the_memory_the_threads_and_the_numbers_decide():
    usual = expected("Qwen3 0.6B", VNNI)
    assert expected("Qwen3 0.6B", VNNI, 2 * TWO_CORES) > 1.7 * usual
    assert expected("Qwen3 0.6B", Machine("cpu", threads=1), 100e9) < usual / 2
    assert expected("Qwen3 0.6B", VNNI, ENGINE="transformers") < usual
    assert expected("Qwen3 0.6B", VNNI, QUANTIZATION="none") < usual / 3


def test_an_embedding_that_is_not_the_head_is_not_read():
    olmo = next(row for row in REAL if row.label == "OLMo 2 1B")
    config = PUBLISHED[olmo.id]
    embedding = config["vocab_size"] * config["hidden_size"]
    assert speed.read_parameters(olmo, config, olmo.bytes) == olmo.parameters - embedding
    assert speed.read_parameters(olmo, {}, olmo.bytes) == olmo.parameters
