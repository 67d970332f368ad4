"""Chooses the attention implementation: the first that the architecture, the GPU and the packages support."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parley.models.hardware import Machine

EAGER = "eager"  # every architecture has it


@dataclass(frozen=True)
class Attention:
    """One attention implementation."""

    name: str  # as transformers calls it
    label: str
    flag: str  # the class attribute of architectures that support it; empty: all do
    packages: frozenset[str] = frozenset()  # any one of them suffices; `kernels` downloads it from the Hub
    suits: Callable[[tuple[int, int]], bool] = lambda capability: True  # takes the compute capability of a GPU


ATTENTIONS = (
    Attention(
        "flash_attention_3",
        "FlashAttention 3",
        "_supports_flash_attn",
        frozenset({"flash_attn_interface", "kernels"}),
        lambda capability: capability[0] == 9,
    ),
    Attention(
        "flash_attention_2",
        "FlashAttention 2",
        "_supports_flash_attn",
        frozenset({"flash_attn", "kernels"}),
        lambda capability: capability >= (8, 0),
    ),
    Attention("sdpa", "SDPA", "_supports_sdpa"),
    Attention(EAGER, "plain attention", ""),
)
LABELS = {row.name: row.label for row in ATTENTIONS}
FLASH = {row.name for row in ATTENTIONS if row.packages}


def choose(config: Mapping[str, Any], here: Machine) -> str:
    """The name of the best implementation for a model with this config."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(config.get("model_type")))
    model = getattr(transformers, name, None) if isinstance(name, str) else None
    only = getattr(model, "_compatible_flash_implementations", None)

    def suits(row: Attention) -> bool:
        if row.packages and (here.device != "cuda" or here.zerogpu or row.packages.isdisjoint(here.packages)):
            return False  # on ZeroGPU a loaded model is tested on the CPU
        if row.packages and only is not None and row.name not in only:
            return False
        supported = getattr(model, row.flag, model is None and not row.packages) if row.flag else True
        return supported and all(row.suits(card.capability) for card in here.cards)

    return next(row.name for row in ATTENTIONS if suits(row))
