"""Ahead-of-time compilation: off unless asked for, and written against the API that is pinned."""

import inspect
import os
import types

import pytest
import spaces
import torch

from parley.engines import ahead
from tests.zerogpu import cpu_shim
from tests.zerogpu.conftest import ZeroGpuSpace


@pytest.fixture
def aoti(monkeypatch):
    """The module of `spaces` that is loaded on demand; it wants a torch with CUDA."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    if not hasattr(torch._C, "_cuda_init"):
        monkeypatch.setattr(torch._C, "_cuda_init", cpu_shim._no_cuda, raising=False)
    from spaces.zero.torch import aoti

    return aoti


def test_it_is_off_unless_it_is_switched_on():
    assert not ahead.wanted({}) and not ahead.wanted({"AOTI": ""})
    assert ahead.wanted({"AOTI": "1"})


def test_what_is_called_is_what_spaces_has(aoti):
    assert set(ahead.Spaces.__annotations__) <= set(spaces.__all__)
    inspect.signature(aoti.aoti_capture).bind("a module")
    inspect.signature(aoti.aoti_compile_and_save).bind("a folder", "an exported program")
    inspect.signature(aoti.aoti_load_from_package_dir).bind("modules", "a folder")


def test_a_layer_is_captured_and_exported_for_any_number_of_rows_and_tokens(budgie, aoti):
    exported = ahead.export(spaces, budgie.loaded).module()
    layer = ahead.feed_forward(budgie.loaded)[0]
    for shape in ((1, 1), (1, 9), (8, 1), (3, 40)):
        x = torch.randn(*shape, budgie.loaded.model.config.hidden_size)
        with torch.no_grad():
            assert torch.equal(exported(x), layer(x))


def test_layers_that_differ_are_left_alone(budgie):
    layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    model = types.SimpleNamespace(modules=layers.modules, _no_split_modules=["Linear"])
    with pytest.raises(ValueError, match="not all alike"):
        ahead.feed_forward(types.SimpleNamespace(model=model))


@pytest.mark.skipif(not ahead.wanted(os.environ), reason="compiles for half a minute: set AOTI=1")
@pytest.mark.timeout(300)
def test_a_space_compiles_its_models_at_the_start_and_answers_with_them(tmp_path):
    space = ZeroGpuSpace(tmp_path, AOTI="1", MODEL_IDS="budgie", OMP_NUM_THREADS="1")
    try:
        assert space.api.asked("/schedule")[0]["durationSeconds"] == str(ahead.SECONDS)
        said = space.client().predict("Tell me a story about an owl.", strategy="greedy", api_name="/chat")
        assert "owl" in said and len(said) > 50
        assert "compiled ahead of time: budgie" in space.output()
    finally:
        print(space.output())
        space.close()
