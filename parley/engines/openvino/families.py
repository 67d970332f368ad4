"""Which decoders the graph is written for: a row says in what a family differs, and the check of a config is strict.

The rows follow the modeling files of transformers, https://github.com/huggingface/transformers/tree/main/src/transformers/models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from transformers import PreTrainedConfig


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
# What code that all models of transformers share reads from a config, whether its class defines it or not: a window
# that the forward pass does not know still shortens the cache.
SHARED = ("sliding_window", "attention_chunk_size", "layer_types")
WINDOWS = ("sliding_window", "layer_types")
MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
OLMO = Family(pre_norms=None, post_norms=("post_attention_layernorm", "post_feedforward_layernorm"), head_norm="all")

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(fields=("sliding_window",)),
    "qwen2": Family(fields=WINDOWS),
    "qwen3": Family(head_norm="each", fields=WINDOWS),
    "smollm3": Family(fields=(*WINDOWS, "no_rope_layers")),
    "granite": Family(fields=MULTIPLIERS),
    "olmo2": OLMO,
    "olmo3": Family(OLMO.pre_norms, OLMO.post_norms, head_norm="all", fields=WINDOWS),
    "phi3": Family(fused=True, fields=("sliding_window",)),
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
    zero or false. A key that the class does not define changes nothing in transformers either, but for `SHARED`.
    """
    if config.model_type not in FAMILIES:
        return f"it has no row for the architecture {config.model_type!r}"
    return next(filter(None, (check(config) for check in (_whole_obstacle, _field_obstacle, _layer_obstacle))), "")


def _whole_obstacle(config: PreTrainedConfig) -> str:
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
    return next((f"it does not know the rope type {rope!r}" for rope in ropes if rope not in ROPES), "")


def known_fields(model_type: str) -> frozenset[str]:
    """The fields that the graph of this family follows, and those that change nothing."""
    return COMMON | INERT | set(FAMILIES[model_type].fields)


def own_fields(config: PreTrainedConfig) -> list[str]:
    """The fields that the config's class adds to those of every config."""
    inherited = {field.name for field in fields(PreTrainedConfig)}
    return [field.name for field in fields(type(config)) if field.name not in inherited]


def value(config: PreTrainedConfig, name: str, neutral: Any = None) -> Any:
    """A field of the config if the family's row knows it, else what is neutral.

    Published files carry keys of other architectures, which transformers does not read and the graph must not either.
    """
    return getattr(config, name, neutral) if name in FAMILIES[config.model_type].fields else neutral


def activation(config: PreTrainedConfig) -> str:
    """The name of the activation, under either of its fields."""
    return value(config, "hidden_activation") or config.hidden_act


def layer_types(config: PreTrainedConfig) -> Sequence[str]:
    """Of each layer, whether it attends to all that was said or to a window."""
    window = "sliding_attention" if value(config, "sliding_window") else "full_attention"
    return value(config, "layer_types") or [window] * config.num_hidden_layers


def rope_parameters(config: PreTrainedConfig, layer_type: str) -> Mapping[str, Any]:
    """The parameters of the rotation in layers of this type."""
    given = config.rope_parameters
    return given.get(layer_type, given)
