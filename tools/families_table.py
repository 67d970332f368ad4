"""Writes docs/families.md: for each causal architecture of transformers, whether OpenVINO serves it, or why not.

    python -m tools.families_table

The reasons come from the config class of an architecture and its defaults.
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

Written by `python -m tools.families_table` for transformers {version}. Do not edit this page: change `FAMILIES` in
`parley/models/families.py` and run the command again. The transformers engine runs the architectures that OpenVINO
does not serve.

| Architecture | OpenVINO |
|---|---|
"""
Kind = type[PreTrainedConfig]  # its attributes are the defaults of the fields
Names = set[str]  # the names of the fields of the config and its sub-configs, and of the sub-configs
Rule = Callable[[Kind, Names], object]


def _has(pattern: str) -> Rule:
    """A rule: a field whose name matches exists."""
    return lambda kind, names: any(re.search(pattern, name) for name in names)


def _set(pattern: str) -> Rule:
    """A rule: a field whose name matches has a default other than None, 0 and False."""
    return lambda kind, names: any(getattr(kind, name, None) for name in names if re.search(pattern, name))


def _recurrent(kind: Kind, names: Names) -> bool:
    return kind.model_type in STATEFUL or any(re.search("conv_|linear_attn", name) for name in names)


def _experts(kind: Kind, names: Names) -> bool:
    switches = [getattr(kind, name) for name in ("is_moe", "enable_moe_block") if name in names]
    return any("expert" in name for name in names) and False not in switches


# The first rule that holds is the reason.
REASONS: dict[str, Rule] = {
    "drafts tokens for one other model": lambda kind, names: kind.model_type.endswith("_assistant"),
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
