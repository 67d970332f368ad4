"""The table of models: those of the Hub, smaller before larger on each kind of hardware, then the two toys."""

from pathlib import Path
from typing import Any

from parley.models.capabilities import PARROT
from parley.models.spec import ModelSpec

BUDGIE = Path(__file__).parents[2] / "budgie"
APACHE = "Apache-2.0"

# The tiers of models for each kind of hardware. ZeroGPU holds all models on one GPU of 48 GB, so there are few of
# them, of many families. The rows with `cpu_on_zerogpu` are offered there too.
TIERS: dict[str, tuple[str, ...]] = {
    "cpu": ("any", "cpu"),
    "gpu-16": ("any", "zerogpu", "gpu-16"),
    "gpu-48": ("any", "zerogpu", "gpu-16", "gpu-48"),
    "zerogpu": ("any", "zerogpu"),
}


def _hub(id: str, label: str, parameters: int, bytes: int, tier: str, **rest: Any) -> ModelSpec:
    known: dict[str, Any] = {"licence": APACHE, "thinking": False} | rest
    return ModelSpec(id, id, label, parameters=parameters, bytes=bytes, tier=tier, **known)


def _bundled(name: str, label: str, folder: Path, draft: str = "") -> ModelSpec:
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    # Two bytes for each parameter. The model card has the exact number.
    known: dict[str, Any] = {
        "parameters": size // 2,
        "bytes": size,
        "licence": APACHE,
        "thinking": True,
        "draft": draft,
        "cpu_on_zerogpu": True,
    }
    return ModelSpec(name, str(folder), label, **known)


SMALL_SMOLLM, SMALL_QWEN = "HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen3-0.6B"

# Sizes are those of the safetensors files; rounded where the last digits are zeros.
REAL: tuple[ModelSpec, ...] = (
    _hub(SMALL_SMOLLM, "SmolLM2 135M", 134_515_008, 269_060_552, "cpu"),
    _hub("HuggingFaceTB/SmolLM2-360M-Instruct", "SmolLM2 360M", 361_821_120, 723_674_912, "cpu"),
    _hub(SMALL_QWEN, "Qwen3 0.6B", 596_049_920, 1_503_300_000, "cpu", thinking=True, cpu_on_zerogpu=True),
    _hub("allenai/OLMo-2-0425-1B-Instruct", "OLMo 2 1B", 1_484_916_736, 2_970_000_000, "cpu"),
    _hub(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct", "SmolLM2 1.7B", 1_711_376_384, 3_422_800_000, "cpu", draft=SMALL_SMOLLM
    ),
    _hub("Qwen/Qwen3-1.7B", "Qwen3 1.7B", 1_720_574_976, 4_063_500_000, "cpu", thinking=True, draft=SMALL_QWEN),
    _hub("HuggingFaceTB/SmolLM3-3B", "SmolLM3 3B", 3_075_098_624, 6_150_200_000, "zerogpu", thinking=True),
    _hub("Qwen/Qwen3-4B-Instruct-2507", "Qwen3 4B", 4_022_468_096, 8_044_900_000, "zerogpu"),
    _hub("ibm-granite/granite-4.1-3b", "Granite 4.1 3B", 3_400_000_000, 6_800_000_000, "zerogpu"),
    _hub("microsoft/Phi-4-mini-instruct", "Phi-4 mini", 3_836_021_760, 7_672_000_000, "gpu-16", licence="MIT"),
    _hub("Qwen/Qwen3-8B", "Qwen3 8B", 8_190_735_360, 16_381_500_000, "gpu-48", thinking=True, draft=SMALL_QWEN),
    _hub("allenai/Olmo-3-7B-Instruct", "Olmo 3 7B", 7_298_011_136, 14_596_000_000, "gpu-48"),
)
TOY = _bundled("budgie", "Budgie (bundled)", BUDGIE / "weights", draft="budgie-draft")
_PARROT = ModelSpec(
    "parrot", "", "Parrot (repeats you)", licence=APACHE, thinking=False, engine="parrot", capabilities=PARROT
)
MODELS = (*REAL, TOY, _PARROT)
ADDED: dict[str, ModelSpec] = {}  # models of engines of your own, by name; see examples/own_engine.py
DRAFT = _bundled("budgie-draft", "Budgie's draft", BUDGIE / "draft")  # it cannot be chosen, so it is not in the table
