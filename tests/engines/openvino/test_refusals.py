"""What the graph would not compute as transformers does is refused: from the config, or when the files are read."""

from dataclasses import replace

import pytest

pytest.importorskip("openvino")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from parley.engines.load_errors import NotFinite
from parley.engines.openvino import graph
from parley.models import families
from parley.models.families import FAMILIES, obstacle
from tests.engines.openvino.decoders import change_config, config_of, distance, expected, run, save, written

FACTORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, **FACTORS}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
FULL = ["full_attention"] * 4
PLAIN = {"rope_type": "default", "rope_theta": 1e4}


def with_rope(model_type, rope, **differs):
    return config_of(model_type, rope_parameters=dict(rope), **differs)


# Whether these switch within the length of the model or not, they are refused alike.
@pytest.mark.parametrize(
    ("config", "rope"),
    [
        (with_rope("llama", DYNAMIC), "dynamic"),
        (with_rope("llama", LONGROPE), "longrope"),
        (with_rope("phi3", LONGROPE), "longrope"),
        (with_rope("phi3", LONGROPE | {"original_max_position_embeddings": 512}), "longrope"),
        (with_rope("olmo3", {"full_attention": LONGROPE, "sliding_attention": PLAIN}), "longrope"),
        (
            with_rope("gemma3_text", {"full_attention": DYNAMIC, "sliding_attention": PLAIN}, layer_types=FULL),
            "dynamic",
        ),
        (with_rope("gemma3_text", {"full_attention": PLAIN, "sliding_attention": LONGROPE}), "longrope"),
    ],
)
def test_rope_that_changes_with_the_length_is_refused(config, rope):
    assert obstacle(config) == f"it does not know the rope type {rope!r}"


def test_longrope_is_refused_as_published_files_spell_it(tmp_path):
    save(tmp_path, "phi3")
    change_config(
        tmp_path,
        rope_parameters=None,
        rope_theta=1e4,
        original_max_position_embeddings=64,
        rope_scaling={"type": "longrope", **FACTORS},
    )
    assert obstacle(AutoConfig.from_pretrained(tmp_path)) == "it does not know the rope type 'longrope'"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (config_of("llama", hidden_act="relu6"), "it does not know the activation 'relu6'"),
        (config_of("gemma3_text", hidden_activation="tanh"), "it does not know the activation 'tanh'"),
        (config_of("gemma3_text", final_logit_softcapping=30.0), "it does not follow final_logit_softcapping=30.0"),
        (config_of("gemma3_text", attn_logit_softcapping=50.0), "it does not follow attn_logit_softcapping=50.0"),
        (
            config_of("gemma3_text", use_bidirectional_attention=True),
            "it does not follow use_bidirectional_attention=True",
        ),
        (config_of("llama", is_causal=False), "its tokens see what comes after them"),
        (config_of("llama", sliding_window=40), "it does not follow sliding_window=40"),
        (config_of("llama", attention_chunk_size=40), "it does not follow attention_chunk_size=40"),
        (config_of("qwen2", layer_types=["linear_attention"] * 4), "it does not know the layers linear_attention"),
        (config_of("olmo3", sliding_window=None), "its windows have no size"),
        (config_of("llama", per_layer_config={1: {"intermediate_size": 80}}), "its layers differ in size"),
        (config_of("llama", quantization_config={"quant_method": "fp8"}), "its weights are quantised already"),
        (AutoConfig.for_model("mixtral"), "it has no row for the architecture 'mixtral'"),
    ],
)
def test_a_config_is_refused_for(config, says):
    assert obstacle(config) == says


def test_layers_of_full_attention_need_no_row_that_knows_them():
    assert obstacle(config_of("llama", layer_types=FULL)) == ""


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_config_that_a_family_has_by_default_is_served(model_type):
    assert obstacle(AutoConfig.for_model(model_type)) == ""


@pytest.mark.parametrize("model_type", FAMILIES)
def test_each_field_of_a_family_is_known_or_neutral(model_type):
    """A release of transformers that gives a config a new field is noticed here, before its models are refused."""
    config = AutoConfig.for_model(model_type)
    own = families.own_fields(config)
    assert {"hidden_size", "rope_parameters"} <= set(own)
    assert [
        name for name in own if name not in families.known_fields(model_type) and getattr(config, name, None)
    ] == []


def test_each_row_knows_only_fields_that_its_class_defines():
    strange = {
        (model_type, name)
        for model_type, family in FAMILIES.items()
        for name in set(family.fields) - set(families.own_fields(AutoConfig.for_model(model_type)))
    }
    assert strange == set()


def test_a_key_that_the_class_does_not_define_is_ignored(tmp_path):
    theirs = save(tmp_path, "llama")
    change_config(
        tmp_path,
        no_rope_layers=[0, 0, 0, 0],
        embedding_multiplier=3.0,
        attention_multiplier=3.0,
        residual_multiplier=3.0,
        logits_scaling=3.0,
        query_pre_attn_scalar=3,
        hidden_activation="tanh",
        is_llama_config=True,
    )
    assert obstacle(AutoConfig.from_pretrained(tmp_path)) == ""
    assert distance(run(written(tmp_path)).logits, expected(theirs).logits) < 1e-5


def spoil(folder, name, change):
    """Changes a tensor of a saved model; `change` returns None to take it out."""
    tensors = load_file(folder / "model.safetensors")
    changed = change(tensors.pop(name))
    save_file(
        tensors if changed is None else tensors | {name: changed}, folder / "model.safetensors", {"format": "pt"}
    )


@pytest.mark.parametrize("name", ["model.layers.2.self_attn.q_proj.weight", "model.norm.weight"])
@pytest.mark.parametrize("change", [lambda tensor: None, lambda tensor: tensor[:-1].clone()])
def test_a_missing_or_misshapen_tensor_is_named(name, change, tmp_path):
    save(tmp_path, "llama")
    spoil(tmp_path, name, change)
    with pytest.raises(graph.WeightsMismatch, match=name) as refused:
        written(tmp_path)
    assert refused.value.names == [name]


@pytest.mark.parametrize("name", ["model.layers.2.self_attn.q_proj.weight", "model.norm.weight"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_spoilt_tensor_is_named(name, precision, number, tmp_path):
    save(tmp_path, "llama")
    spoil(tmp_path, name, lambda tensor: tensor.index_fill(0, torch.tensor([3]), number))
    with pytest.raises(NotFinite, match=name):
        written(tmp_path, precision)


def test_a_row_that_forgets_a_norm_is_noticed(tmp_path, monkeypatch):
    save(tmp_path, "qwen3")
    monkeypatch.setitem(FAMILIES, "qwen3", replace(FAMILIES["qwen3"], head_norm=""))
    with pytest.raises(graph.UnusedParameters, match=r"model\.layers\.0\.self_attn\.k_norm\.weight"):
        written(tmp_path)


def test_a_head_that_the_files_hold_apart_is_not_tied(tmp_path):
    save(tmp_path, "llama", tie_word_embeddings=False)
    change_config(tmp_path, tie_word_embeddings=True)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not torch.equal(theirs.lm_head.weight, theirs.model.embed_tokens.weight)
    assert distance(run(written(tmp_path)).logits, expected(theirs).logits) < 1e-5


def test_files_of_several_parts_and_of_the_bare_decoder_are_read(tmp_path):
    model = save(tmp_path / "whole", "qwen2", tie_word_embeddings=True)
    model.model.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    model.config.save_pretrained(tmp_path / "parts")
    assert distance(run(written(tmp_path / "parts")).logits, expected(model).logits) < 1e-5


def test_only_the_file_that_transformers_loads_is_read(tmp_path):
    model = save(tmp_path, "llama")
    other = {"model.norm.weight": torch.zeros(64)}
    save_file(other, tmp_path / "model.zeroed.safetensors", {"format": "pt"})
    assert distance(run(written(tmp_path)).logits, expected(model).logits) < 1e-5
