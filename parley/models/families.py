"""The model families that the OpenVINO graph supports. A row says how a family differs from Llama.

A config with anything unknown is refused.
The rows follow the modeling files of transformers, https://github.com/huggingface/transformers/tree/main/src/transformers/models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from transformers import CONFIG_MAPPING, PreTrainedConfig

from parley import positions


@dataclass(frozen=True)
class Family:
    """How a decoder differs from Llama. Names are those of modules in a layer, or of fields in the config."""

    # Before attention and before the MLP; empty for none. One name: both share the norm and run in parallel.
    pre_norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    post_norms: tuple[str, str] = ("", "")  # after attention and after the MLP, before the residual is added
    norm: Literal["rms", "layer"] = "rms"
    norm_adds_one: bool = False  # the norm multiplies by 1 + weight
    epsilon: str | float = "rms_norm_eps"  # of all norms: a config field, or the number
    head_norm: Literal["", "each", "all"] = (
        ""  # norm of queries and keys before RoPE: for each head, or over all heads
    )
    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")  # the input projections are concatenated
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    gated: bool = True  # the first half of the MLP's input projection is a gate for the second half
    pairs: Literal["halves", "neighbours"] = "halves"  # which dimensions of a head RoPE rotates together
    turned: Literal["all", "windows", "windows or all"] = "all"  # the layers with RoPE; "or all": if none has a window
    scales_embedding: bool = False  # by the square root of the hidden size
    multiplies_logits: str = ""  # by this config field
    divides_logits: str = ""
    fields: tuple[str, ...] = ()  # further config fields that the graph follows, in addition to `COMMON`


# The config fields that the graph follows in every family. Biases and post norms follow from the model's parameters.
COMMON = frozenset(
    (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rope_parameters"),
        *("tie_word_embeddings", "attention_bias", "attention_out_bias", "mlp_bias", "use_bias", "use_qkv_bias"),
        "use_post_norm",
    )
)
# The config fields that change nothing in inference.
INERT = frozenset(
    (
        *("initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp"),
        *("attention_dropout", "resid_pdrop", "embd_pdrop", "residual_dropout", "embedding_dropout", "hidden_dropout"),
        # The class makes `layer_types` and `no_rope_layers` from these:
        *("no_rope_layer_interval", "use_sliding_window", "max_window_layers", "sliding_window_pattern"),
        "original_max_position_embeddings",  # a part of the RoPE parameters, which are checked separately
    )
)
# The config fields that shared code of transformers reads, even if the class does not define them. For example, a
# window that the forward pass ignores still shortens the cache.
SHARED = ("sliding_window", "attention_chunk_size", "layer_types")
WINDOW, WINDOWS = ("sliding_window",), ("sliding_window", "layer_types")
MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
LLAMA = Family()
OLMO2 = Family(pre_norms=("", ""), post_norms=AFTER, head_norm="all")
GEMMA = Family(norm_adds_one=True, scales_embedding=True)
GLM = Family(mlp=("gate_up_proj", "down_proj"), pairs="neighbours")
COHERE = Family(
    pre_norms=("input_layernorm",),
    norm="layer",
    epsilon="layer_norm_eps",
    pairs="neighbours",
    multiplies_logits="logit_scale",
)
UNGATED = Family(mlp=("up_proj", "down_proj"), gated=False)

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "iquestcoder": LLAMA,
    "internlm3": LLAMA,
    "seed_oss": LLAMA,
    "mistral": Family(fields=WINDOW),
    "ministral": Family(fields=WINDOWS),
    "cwm": Family(fields=WINDOWS),
    "qwen2": Family(fields=WINDOWS),
    "qwen3": Family(head_norm="each", fields=WINDOWS),
    "smollm3": Family(fields=(*WINDOWS, "no_rope_layers")),
    "granite": Family(divides_logits="logits_scaling", fields=MULTIPLIERS),
    "hyperclovax": Family(
        post_norms=("post_norm1", "post_norm2"), multiplies_logits="logits_scaling", fields=MULTIPLIERS
    ),
    "olmo": Family(norm="layer", epsilon=1e-5),
    "olmo2": OLMO2,
    "olmo3": replace(OLMO2, fields=WINDOWS),
    "exaone4": replace(OLMO2, head_norm="each", turned="windows or all", fields=WINDOWS),
    "phi3": Family(attention=("qkv_proj", "o_proj"), mlp=("gate_up_proj", "down_proj"), fields=WINDOW),
    "gemma": GEMMA,
    "gemma3_text": replace(
        GEMMA,
        pre_norms=("input_layernorm", "pre_feedforward_layernorm"),
        post_norms=AFTER,
        head_norm="each",
        fields=(*WINDOWS, "hidden_activation", "query_pre_attn_scalar"),
    ),
    "helium": Family(pairs="neighbours"),
    "ernie4_5": Family(pairs="neighbours"),
    "glm": GLM,
    "glm4": replace(GLM, post_norms=("post_self_attn_layernorm", "post_mlp_layernorm")),
    "cohere": COHERE,
    "cohere2": replace(COHERE, turned="windows", fields=WINDOWS),
    "stablelm": Family(norm="layer", epsilon="layer_norm_eps"),
    "arcee": UNGATED,
    "nemotron": replace(UNGATED, norm="layer", norm_adds_one=True, epsilon="norm_eps"),
    "jais2": replace(UNGATED, norm="layer", epsilon="layer_norm_eps"),
    "starcoder2": Family(mlp=("c_fc", "c_proj"), gated=False, norm="layer", epsilon="norm_epsilon", fields=WINDOW),
}
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu2")
LAYERS = [kind for kind, row in positions.LAYERS.items() if row.openvino]


def obstacle(config: PreTrainedConfig) -> str:
    """Why the graph does not support this model, as the end of a sentence; empty where it does.

    A field that the config class defines and that the family's row does not list must be None, zero, false or empty. A
    key that the class does not define has no effect in transformers either, except for `SHARED`.
    """
    if config.model_type not in FAMILIES:
        return f"it has no row for the architecture {config.model_type!r}"
    return next(filter(None, (check(config) for check in (_model_obstacle, _field_obstacle, _layer_obstacle))), "")


def _model_obstacle(config: PreTrainedConfig) -> str:
    if getattr(config, "quantization_config", None):
        return "its weights are quantised already"
    if config.is_heterogeneous:
        return "its layers differ in size"
    return "" if getattr(config, "is_causal", True) else "its tokens see what comes after them"


def _field_obstacle(config: PreTrainedConfig) -> str:
    known = known_fields(config.model_type)
    unknown = [name for name in (*own_fields(config), *SHARED) if name not in known and _matters(config, name)]
    if unknown:
        return f"it does not follow {unknown[0]}={getattr(config, unknown[0])!r}"
    name = activation(config)
    return "" if name in ACTIVATIONS else f"it does not know the activation {name!r}"


def _matters(config: PreTrainedConfig, name: str) -> bool:
    given = getattr(config, name, None)
    return bool(set(given or ()) - {"full_attention"} if name == "layer_types" else given)


def _layer_obstacle(config: PreTrainedConfig) -> str:
    kinds = sorted(set(layer_types(config)))
    if other := [kind for kind in kinds if kind not in LAYERS]:
        return f"it does not know the layers {', '.join(other)}"
    if "sliding_attention" in kinds and not value(config, "sliding_window"):
        return "its windows have no size"
    ropes = (rope_parameters(config, kind).get("rope_type", "default") for kind in kinds)
    served = [kind for kind, row in positions.ROPES.items() if row.openvino]
    return next((f"it does not know the rope type {rope!r}" for rope in ropes if rope not in served), "")


def read_config(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The config object for the values of a `config.json`. May raise any exception for odd values."""
    return CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))


def known_fields(model_type: str) -> frozenset[str | float]:
    """The config fields that the graph of this family follows, and those that change nothing."""
    family = FAMILIES[model_type]
    return COMMON | INERT | {*family.fields, family.epsilon, family.multiplies_logits, family.divides_logits}


def own_fields(config: PreTrainedConfig) -> list[str]:
    """The fields that the class of the config adds to the common ones."""
    inherited = {field.name for field in fields(PreTrainedConfig)}
    return [field.name for field in fields(type(config)) if field.name not in inherited]


def value(config: PreTrainedConfig, name: str, neutral: Any = None) -> Any:
    """A field of the config if the family's row lists it, otherwise `neutral`.

    Published configs contain keys of other architectures. Transformers ignores them, and so must the graph.
    """
    return getattr(config, name, neutral) if name in FAMILIES[config.model_type].fields else neutral


def logits_scale(config: PreTrainedConfig) -> float:
    """The factor of all logits."""
    family = FAMILIES[config.model_type]
    by, over = (getattr(config, name) if name else 1.0 for name in (family.multiplies_logits, family.divides_logits))
    return by / over


def activation(config: PreTrainedConfig) -> str:
    """The name of the activation, from either of the two config fields."""
    return value(config, "hidden_activation") or config.hidden_act


def layer_types(config: PreTrainedConfig) -> Sequence[str]:
    """The attention type of each layer: full or sliding window."""
    window = "sliding_attention" if value(config, "sliding_window") else "full_attention"
    return value(config, "layer_types") or [window] * config.num_hidden_layers


def is_turned(config: PreTrainedConfig, layer: int) -> bool:
    """Whether this layer applies RoPE to queries and keys."""
    which = FAMILIES[config.model_type].turned
    if which == "windows" or (which == "windows or all" and value(config, "sliding_window")):
        return layer_types(config)[layer] == "sliding_attention"
    listed = value(config, "no_rope_layers")
    return bool(listed[layer]) if listed else True


def rope_parameters(config: PreTrainedConfig, layer_type: str) -> Mapping[str, Any]:
    """The RoPE parameters for layers of this type."""
    given = config.rope_parameters
    return given.get(layer_type, given)
