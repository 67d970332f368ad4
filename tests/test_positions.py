"""The table of kinds of positions is whole, and is read from a config alone."""

import inspect

import pytest
import transformers
from transformers import AutoConfig
from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from parley.models import traits
from parley.models.families import FAMILIES, obstacle
from parley.positions import LAYERS, REREAD, ROPES, Rotation, ropes
from tests.standins.positions import CONTEXT, PARAMETERS, SIZES, rope


@pytest.mark.parametrize("kind", ROPES)
def test_the_other_engine_is_refused_from_the_config_alone(kind):
    """That the graph serves the others past their first window is shown by tests/engines/openvino/test_graph.py."""
    config = AutoConfig.for_model("llama", **SIZES | rope(kind))
    assert obstacle(config) == ("" if ROPES[kind].openvino else f"it does not know the rope type {kind!r}")


def test_the_context_of_mpt_ends_with_its_biases():
    assert traits.context_length(AutoConfig.for_model("mpt", max_seq_len=CONTEXT).to_dict()) == CONTEXT


def test_the_context_of_dynamic_ntk_ends_before_the_frequencies_change():
    config = AutoConfig.for_model("llama", **SIZES | rope("dynamic"))
    context = traits.context_length(config.to_dict())
    rotation = Rotation(config)
    assert context == CONTEXT and rotation.at(context) == rotation.at(1) != rotation.at(context + 1)
    assert [rotation.drafts(length, 4) for length in (8, context - 1, context)] == [4, 1, 0]


def architectures():
    """The configs of the decoders of all causal architectures, by their defaults."""
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if not model_type.endswith("_assistant"):  # drafts for one other model
            yield model_type, AutoConfig.for_model(model_type).get_text_config(decoder=True)


def test_every_kind_that_transformers_has_is_a_row():
    assert set(ROPES) == {"default", *ROPE_INIT_FUNCTIONS}
    assert set(PARAMETERS) == set(ROPES)
    found = {each.get("rope_type", "default") for _, config in architectures() for each in ropes(config)}
    assert found <= set(ROPES)
    kinds = {kind for _, config in architectures() for kind in getattr(config, "layer_types", None) or ()}
    assert (kinds | set(DYNAMIC_LAYER_TYPE_MAPPING)) - {"moe", "mlp"} <= set(LAYERS)  # the two have no attention


def test_the_architectures_that_drop_their_cache_are_those_that_are_known():
    drop = set()
    for model_type, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        prepare = getattr(transformers, name).prepare_inputs_for_generation
        if "past_key_values = None" in inspect.getsource(prepare):
            drop.add(model_type)
    assert drop == REREAD


# How the architectures without RoPE know places. Those with a decoder of their own learn them or add sinusoids.
WITHOUT_ROPE = {
    "ALiBi": {"bloom", "mpt"},
    "learned": {
        *("bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "biogpt", "blenderbot"),
        *("blenderbot-small", "camembert", "data2vec-text", "electra", "ernie", "git", "gpt-sw3", "gpt2"),
        *("gpt_bigcode", "gpt_neo", "mbart", "megatron-bert", "mvp", "openai-gpt", "opt", "plbart", "prophetnet"),
        *("reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "whisper", "xlm", "xlm-roberta"),
        *("xlm-roberta-xl", "xmod"),
    },
    "sinusoids": {
        *("codegen", "ctrl", "gptj", "marian", "musicgen", "musicgen_melody", "pegasus", "roformer", "trocr", "xglm"),
    },
    "relative": {"cohere_compass_text", "cpmant", "inkling2_text", "inkling_text", "xlnet"},
    "a state": {
        *("falcon_mamba", "jamba", "kimi_linear", "mamba", "mamba2", "nemotron_h", "rwkv", "xlstm", "zamba"),
    },
}


def test_every_architecture_without_rope_is_listed_and_refused_by_the_graph():
    without = {model_type for model_type, config in architectures() if not ropes(config)}
    assert without == set().union(*WITHOUT_ROPE.values())
    assert without.isdisjoint(FAMILIES)
