"""Which attention a model is run with: the first that its architecture, the card and the installed packages allow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parley.models.hardware import Machine

PLAIN = "eager"  # every architecture has it


@dataclass(frozen=True)
class Attention:
    """One row of the table."""

    name: str  # as transformers calls it
    label: str
    supported: str  # the flag of an architecture that has code for it
    packages: frozenset[str] = frozenset()  # that bring it, each alone; `kernels` fetches it from the Hub
    suits: Callable[[tuple[int, int]], bool] = lambda capability: True  # the compute capability of each card


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
    Attention(PLAIN, "plain attention", ""),
)
LABELS = {row.name: row.label for row in ATTENTIONS}
FLASH = {row.name for row in ATTENTIONS if row.packages}


def choose(config: Mapping[str, Any], here: Machine) -> str:
    """The name of the best for a model with this configuration."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(config.get("model_type")))
    model = getattr(transformers, name, None) if isinstance(name, str) else None
    only = getattr(model, "_compatible_flash_implementations", None)

    def suits(row: Attention) -> bool:
        if row.packages and (here.device != "cuda" or here.zerogpu or row.packages.isdisjoint(here.packages)):
            return False  # on ZeroGPU a model is tried out on the CPU
        if row.packages and only is not None and row.name not in only:
            return False
        known = getattr(model, row.supported, model is None and not row.packages) if row.supported else True
        return known and all(row.suits(card.capability) for card in here.cards)

    return next(row.name for row in ATTENTIONS if suits(row))
