"""Which decoders the graph is written for: a row says in what a family differs, and the check of a config is strict.

The rows follow the modeling files of transformers, https://github.com/huggingface/transformers/tree/main/src/transformers/models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig


@dataclass(frozen=True)
class Family:
    """In what a decoder differs from Llama. Names are those of modules within one layer."""

    pre_norms: tuple[str, str] | None = ("input_layernorm", "post_attention_layernorm")  # before attention and MLP
    post_norms: tuple[str, str] | None = None  # after them, before the residual is added
    norm_adds_one: bool = False  # the norm multiplies by 1 + weight
    head_norm: str = ""  # of queries and keys, before rotation: "each" head by itself, or "all" of them together
    fused: bool = False  # the files hold `qkv_proj` and `gate_up_proj`
    scales_embedding: bool = False  # by the square root of the width
    fields: tuple[str, ...] = ()  # of its config, beyond `COMMON`: what the graph also follows


# What the graph follows in every family. Biases follow from the model's own parameters.
COMMON = frozenset(
    (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "max_position_embeddings"),
        *("rope_parameters", "tie_word_embeddings", "attention_bias", "mlp_bias"),
    )
)
# What changes nothing in a forward pass without training.
INERT = frozenset(
    (
        *("initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp"),
        *("attention_dropout", "resid_pdrop", "embd_pdrop", "residual_dropout"),
        *("no_rope_layer_interval", "use_sliding_window", "max_window_layers"),  # the lists of layers are made of them
        "original_max_position_embeddings",  # a part of the rope parameters, which are checked by themselves
    )
)
WINDOWS = ("sliding_window", "layer_types")
MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
OLMO = Family(pre_norms=None, post_norms=("post_attention_layernorm", "post_feedforward_layernorm"), head_norm="all")

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(fields=WINDOWS),
    "qwen2": Family(fields=WINDOWS),
    "qwen3": Family(head_norm="each", fields=WINDOWS),
    "smollm3": Family(fields=(*WINDOWS, "no_rope_layers")),
    "granite": Family(fields=MULTIPLIERS),
    "olmo2": OLMO,
    "olmo3": Family(OLMO.pre_norms, OLMO.post_norms, head_norm="all", fields=WINDOWS),
    "phi3": Family(fused=True, fields=WINDOWS),
    "gemma3_text": Family(
        pre_norms=("input_layernorm", "pre_feedforward_layernorm"),
        post_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        norm_adds_one=True,
        head_norm="each",
        scales_embedding=True,
        fields=(*WINDOWS, "hidden_activation", "query_pre_attn_scalar"),
    ),
}
ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
ROPES = ("default", "linear", "llama3", "yarn")  # their frequencies stay the same, however long the text is
LAYERS = ("full_attention", "sliding_attention")


def obstacle(config: PreTrainedConfig) -> str:
    """Why the graph of this model cannot be written, as the end of a sentence; empty where it can.

    Each field that the family's config class defines and its row does not know must have its neutral value: nothing,
    zero or false. A key that the class does not define changes nothing in transformers either.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        return f"it has no row for the architecture {config.model_type!r}"
    if getattr(config, "quantization_config", None):
        return "its weights are quantised already"
    known = COMMON | INERT | set(family.fields)
    odd = [name for name in own_fields(config) if name not in known and getattr(config, name, None)]
    if odd:
        return f"it does not follow {odd[0]}={getattr(config, odd[0])!r}"
    if activation(config) not in ACTIVATIONS:
        return f"it does not know the activation {activation(config)!r}"
    if other := set(layer_types(config)).difference(LAYERS):
        return f"it does not know the layers {', '.join(sorted(other))}"
    ropes = (rope_parameters(config, kind).get("rope_type", "default") for kind in set(layer_types(config)))
    return next((f"it does not know the rope type {rope!r}" for rope in ropes if rope not in ROPES), "")


def read_config(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The config object of what a `config.json` holds; raises whatever its class makes of odd values."""
    return CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))


def own_fields(config: PreTrainedConfig) -> list[str]:
    """The fields that the config's class adds to those of every config."""
    inherited = {field.name for field in fields(PreTrainedConfig)} if is_dataclass(PreTrainedConfig) else set()
    return [field.name for field in fields(type(config)) if field.name not in inherited - {"tie_word_embeddings"}]


def activation(config: PreTrainedConfig) -> str:
    """The name of the activation, under either of its fields."""
    return getattr(config, "hidden_activation", None) or config.hidden_act


def layer_types(config: PreTrainedConfig) -> Sequence[str]:
    """Of each layer, whether it attends to all that was said or to a window."""
    window = "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"
    return getattr(config, "layer_types", None) or [window] * config.num_hidden_layers


def rope_parameters(config: PreTrainedConfig, layer_type: str) -> Mapping[str, Any]:
    """The parameters of the rotation in layers of this type."""
    given = config.rope_parameters
    return given[layer_type] if layer_type in given else given


def head_size(config: PreTrainedConfig) -> int:
    """The width of one head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
