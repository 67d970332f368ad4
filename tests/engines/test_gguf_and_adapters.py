"""Models as GGUF files and with LoRA adapters: the same logits as from a plain folder, in both engines."""

import json
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from parley.engines.base import TurnRequest
from parley.engines.checkpoint import LLAMA3_ROPE
from parley.engines.loader import load
from parley.engines.tensors import GgufFile, Merged, SafetensorsFolder, tensor
from parley.errors import ModelUnavailable
from parley.events import Answer
from parley.messages import build_messages
from parley.models import registry
from parley.models.formats import gguf as header
from parley.models.spec import ModelSpec
from parley.serving.model_pool import local_engine
from parley.settings import Settings
from tests.standins import gguf_files
from tests.standins.hub import WEIGHTS, save_tiny_model

IDS = torch.arange(3, 40)[None]


def offered(place, name="tiny"):
    return registry.models({"MODEL_IDS": f"{name}={place},budgie"})[name]


def loaded(spec):
    return load(spec, lambda _: None, threading.Event())


def logits(spec):
    with torch.inference_mode():
        return loaded(spec).model(IDS).logits.float()


@pytest.fixture(params=["auto", "transformers"])
def engine(request, monkeypatch):
    monkeypatch.setenv("ENGINE", request.param)
    return request.param


def lora_folder(base, folder, **config):
    """A LoRA adapter of rank 3 with random matrices for two kinds of layers."""
    folder.mkdir()
    stated = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "base_model_name_or_path": str(base), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(stated | config))
    random, pairs = torch.Generator().manual_seed(5), {}
    for name, weight in load_file(base / WEIGHTS).items():
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            pairs[f"{stem}.lora_A.weight"] = torch.randn(3, weight.shape[1], generator=random)
            pairs[f"{stem}.lora_B.weight"] = torch.randn(weight.shape[0], 3, generator=random)
    save_file(pairs, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.slow
def test_a_gguf_file_gives_the_logits_of_its_folder(engine, tiny, tmp_path):
    file = gguf_files.write(tiny, tmp_path / "tiny.gguf")
    assert torch.allclose(logits(offered(file)), logits(offered(tiny)), atol=2e-5)


KINDS = ["Llama", "Qwen2", "Qwen3", "Phi3", "Gemma3", "Starcoder2", "Nemotron"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", ["F32", "F16", "Q8_0"])
def test_every_tensor_comes_back_from_the_layout_of_llama_cpp(tmp_path, kind, stored):
    folder = save_tiny_model(tmp_path / "m", kind)
    read, plain = GgufFile(gguf_files.write(folder, tmp_path / "m.gguf", stored)), SafetensorsFolder(folder)
    error = {"F32": 1e-6, "F16": 1e-3, "Q8_0": 3e-3}[stored]
    for name in load_file(folder / WEIGHTS):
        assert torch.allclose(tensor(read, name), tensor(plain, name), atol=error)
        assert torch.equal(read.rows(name, 5, 9), tensor(read, name)[5:9])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Gemma3"])
def test_every_architecture_gives_the_logits_of_its_folder(tmp_path, kind):
    folder = save_tiny_model(tmp_path / "m", kind)
    file = gguf_files.write(folder, tmp_path / "m.gguf")
    assert torch.allclose(logits(offered(file)), logits(offered(folder)), atol=5e-5)


def test_a_configuration_comes_back_where_the_tokenizer_has_another_kind(tmp_path):
    folder = save_tiny_model(tmp_path / "m", "Gemma3")
    file = gguf_files.write(folder, tmp_path / "m.gguf")
    plain = AutoConfig.from_pretrained(folder).to_dict()
    read = AutoConfig.from_pretrained(file.parent, gguf_file=file.name).to_dict()
    for name in ("rope_parameters", "layer_types", "sliding_window", "head_dim", "query_pre_attn_scalar"):
        assert read[name] == plain[name]


def llama3_factors(theta, factor, dimensions=16):
    config = LlamaConfig(
        hidden_size=32,
        num_attention_heads=32 // dimensions,
        rope_parameters=LLAMA3_ROPE | {"rope_type": "llama3", "rope_theta": theta, "factor": factor},
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return 1.0 / theta ** (torch.arange(0, dimensions, 2) / dimensions) / scaled


def test_the_rope_factors_of_llama_3_become_its_setting(tiny, tmp_path):
    factors = llama3_factors(10_000.0, 32.0)
    file = gguf_files.write(tiny, tmp_path / "tiny.gguf", add={"rope_freqs.weight": factors})
    rope = loaded(offered(file)).model.config.rope_parameters
    assert (rope["rope_type"], rope["factor"]) == ("llama3", pytest.approx(32.0))
    odd = gguf_files.write(tiny, tmp_path / "odd.gguf", add={"rope_freqs.weight": factors + 1})
    with pytest.raises(ModelUnavailable, match="RoPE factors of its own"):
        loaded(offered(odd))


def test_the_factors_of_longrope_are_not_left_out_silently(tiny, tmp_path):
    factors = {f"rope_factors_{name}.weight": torch.ones(8) for name in ("short", "long")}
    file = gguf_files.write(tiny, tmp_path / "long.gguf", add=factors)
    with pytest.raises(ModelUnavailable, match="RoPE factors of its own"):
        loaded(offered(file))


def test_a_quantised_gguf_file_answers_a_turn_and_its_size_after_the_conversion_counts(tiny, tmp_path):
    file = gguf_files.write(tiny, tmp_path / "tiny.gguf", "Q8_0")
    spec = offered(file)
    asked = build_messages([], "Hello", "Be brief."), Settings.check({"max_new_tokens": 4}), threading.Event()
    engine = local_engine(found := loaded(spec))
    total = Answer.of(engine.stream(TurnRequest.of(*asked)))
    assert total.usage.new_tokens == 4 or total.finish == "end"
    assert found.context == 512 and found.model.generation_config.eos_token_id == [2]
    numbers = sum(weight.numel() for weight in load_file(tiny / WEIGHTS).values())
    assert header.header(file).converted_bytes == 2 * numbers
    known, plan = registry.traits(spec), registry.estimate(spec, lambda _: 10**10)
    assert (known.context, known.layers, known.thinking) == (512, 2, True)
    assert plan.plan.weights == found.plan.weights
    assert "float32" in found.plan.numbers


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_an_adapter_is_merged_while_it_is_read(engine, tiny, tmp_path, options):
    adapter = lora_folder(tiny, tmp_path / "adapter", **options)
    base, pairs = load_file(tiny / WEIGHTS), load_file(adapter / "adapter_model.safetensors")
    scale = 6 / 3**0.5 if options else 6 / 3
    for name in [name for name in pairs if ".lora_A." in name]:
        target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        base[target] += scale * pairs[name.replace("lora_A", "lora_B")] @ pairs[name]
    merged = save_tiny_model(tmp_path / "merged")
    save_file(base, merged / WEIGHTS, metadata={"format": "pt"})
    assert torch.allclose(logits(offered(adapter)), logits(offered(merged)), atol=1e-4)
    assert not torch.allclose(logits(offered(adapter)), logits(offered(tiny)), atol=1e-2)


def test_an_adapter_of_a_gguf_file_is_merged_too(tiny, tmp_path):
    adapter = lora_folder(tiny, tmp_path / "adapter")
    on_folder = Merged(SafetensorsFolder(tiny), adapter)
    on_file = Merged(GgufFile(gguf_files.write(tiny, tmp_path / "tiny.gguf")), adapter)
    for name in load_file(tiny / WEIGHTS):
        assert torch.equal(tensor(on_folder, name), tensor(on_file, name))


def test_an_adapter_beside_its_base_brings_its_own_chat_template(tiny, tmp_path):
    base = save_tiny_model(tmp_path / "base")
    adapter = lora_folder(base, tmp_path / "adapter", base_model_name_or_path="base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).write_text((base / name).read_text())
    (base / "chat_template.jinja").unlink()
    (adapter / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert loaded(offered(adapter)).reasoning.switch is None


def test_an_adapter_for_another_model_is_refused(tiny, tmp_path):
    adapter = lora_folder(tiny, tmp_path / "adapter")
    pairs = load_file(adapter / "adapter_model.safetensors")
    moved = {name.replace("layers.1", "layers.7"): each for name, each in pairs.items()}
    save_file(moved, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelUnavailable, match="has weights that cannot be loaded"):
        loaded(offered(adapter))


@pytest.mark.slow
def test_a_real_gguf_file_answers(real_gguf):
    spec = ModelSpec("smol", str(real_gguf.parent), "Smol", gguf=real_gguf.name)
    settings = Settings.check({"strategy": "greedy", "max_new_tokens": 12})
    asked = build_messages([], "What is the capital of France?", ""), settings, threading.Event()
    assert "Paris" in Answer.of(local_engine(loaded(spec)).stream(TurnRequest.of(*asked))).text
