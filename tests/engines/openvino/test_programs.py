"""What is printed under an answer, and what is not in memory: PyTorch's weights."""

import contextlib
import io

import pytest

pytest.importorskip("openvino")

import torch
from transformers import AutoModelForCausalLM

from parley.models.load_plan import openvino_bytes
from parley.strategies import STRATEGIES
from tests.conftest import draft, engine
from tests.engines.openvino.asking import LONG, SHORT, answer

MAY_DIFFER = "# OpenVINO int8 answered. This program uses the stored weights: words may differ."


@pytest.fixture(scope="module")
def small():
    return engine(QUANTIZATION="int8")


def printed(program):
    """What the program prints, run as a reader would run it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(program, {})
    return said.getvalue().strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_with_floats_the_program_prints_the_text_and_promises_it(budgie, name):
    made = answer(budgie, LONG[:-1] + SHORT, strategy=name, force_words="lantern", exit_layer=4)
    assert made.run_record.config["engine"] == "OpenVINO float32"
    assert "differ" not in made.run_record.program and made.run_record.program.startswith("import torch")
    assert printed(made.run_record.program) == made.text.strip() != ""


@pytest.mark.parametrize("name", ["sampling", "greedy"])
def test_guidance_is_printed_too(budgie, name):
    values = {"strategy": name, "temperature": 1.3, "top_k": 0, "top_p": 1.0}
    made = answer(budgie, SHORT, guidance_scale=5.0, negative_prompt="Answer like a pirate.", **values)
    assert printed(made.run_record.program) == made.text.strip() != answer(budgie, SHORT, **values).text.strip()


@pytest.mark.parametrize("name", ["greedy", "beams"])
def test_with_one_byte_a_weight_it_says_that_words_may_differ(small, name):
    made = answer(small, SHORT, strategy=name, force_words="lantern", max_new_tokens=4)
    assert made.run_record.config["engine"] == "OpenVINO int8"
    assert made.run_record.program.splitlines()[0] == MAY_DIFFER
    compile(made.run_record.program, "program", "exec")


def test_what_the_program_of_one_byte_a_weight_prints_begins_alike(small):
    made = answer(small, [SHORT[0]._replace(content="What is the capital of Japan?")])
    assert printed(made.run_record.program) == made.text.strip()  # Budgie is sure of this one


@pytest.mark.parametrize("precision", ["none", pytest.param("int8", marks=pytest.mark.slow)])
def test_no_weights_of_pytorch_are_loaded(precision, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("PyTorch's weights are loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refused)
    made = engine(QUANTIZATION=precision)
    model = made.loaded.model
    assert sum(each.numel() for each in (*model.parameters(), *model.buffers())) == 0
    held = [each for each in vars(model).values() if isinstance(each, torch.nn.Module | torch.Tensor)]
    assert held == [] and not list(model.children())
    for name in STRATEGIES:
        assert answer(made, SHORT, strategy=name, helper=made, max_new_tokens=4).usage.new_tokens == 4
    both = [openvino_bytes(graph.weight_bytes, graph.num_layers) for graph in (model.decoder, model.exit)]
    assert model.get_memory_footprint() == sum(both)


def test_the_draft_has_none_either():
    assert not list(draft().loaded.model.parameters())
