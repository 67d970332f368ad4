"""Writes docs/families.md: of each causal architecture of transformers, whether OpenVINO serves it, or why not.

    python -m tools.families_table

The reasons are read off the config class of an architecture and its defaults.
"""

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from parley.models.families import ACTIVATIONS, FAMILIES
from parley.strategies.requirements import STATEFUL

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
HEAD = """# Which architectures the OpenVINO engine serves

Written by `python -m tools.families_table` for transformers {version}. Change `FAMILIES` in
`parley/engines/openvino/families.py`, not this page, and write it anew. What is not served here is answered by the
transformers engine.

| Architecture | OpenVINO |
|---|---|
"""
Kind = type[PreTrainedConfig]  # its attributes are the values that the fields have by default
Names = set[str]  # of the fields that it and the classes of its parts define, and of the parts
Rule = Callable[[Kind, Names], object]


def _has(pattern: str) -> Rule:
    """Whether there is a field whose name matches."""
    return lambda kind, names: any(re.search(pattern, name) for name in names)


def _set(pattern: str) -> Rule:
    """Whether a field whose name matches has a value, and not zero or false."""
    return lambda kind, names: any(getattr(kind, name, None) for name in names if re.search(pattern, name))


def _recurrent(kind: Kind, names: Names) -> bool:
    return kind.model_type in STATEFUL or any(re.search("conv_|linear_attn", name) for name in names)


def _experts(kind: Kind, names: Names) -> bool:
    switches = [getattr(kind, name) for name in ("is_moe", "enable_moe_block") if name in names]
    return any("expert" in name for name in names) and False not in switches


# The first that holds is the reason.
REASONS: dict[str, Rule] = {
    "guesses ahead for one other model": lambda kind, names: kind.model_type.endswith("_assistant"),
    "reads images or sound too": _has("^(vision|audio|vq|image)_"),
    "encoder and decoder": lambda kind, names: kind.is_encoder_decoder,
    "an encoder that can be used as a decoder": lambda kind, names: {"is_decoder", "add_cross_attention"} <= names,
    "keeps a recurrent state": _recurrent,
    "mixture of experts": _experts,
    "multi-head latent attention": _has("^kv_lora_rank$"),
    "soft caps": _set("softcap"),
    "positions that no rope parameters describe": lambda kind, names: "rope_parameters" not in names,
    "another activation": lambda kind, names: getattr(kind, "hidden_act", "silu") not in ACTIVATIONS,
    "no row yet": lambda kind, names: True,
}


def verdict(model_type: str) -> str:
    """Whether the architecture is served, or why not."""
    if model_type in FAMILIES:
        return "served"
    kind = CONFIG_MAPPING[model_type]
    parts = (part for part in (kind, *kind.sub_configs.values()) if is_dataclass(part))  # some are AutoConfig
    names = {field.name for part in parts for field in fields(part)} | set(kind.sub_configs)
    return next(reason for reason, rule in REASONS.items() if rule(kind, names))


def page() -> str:
    """The text of docs/families.md."""
    rows = (f"| {name} | {verdict(name)} |\n" for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    return HEAD.format(version=transformers.__version__) + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
