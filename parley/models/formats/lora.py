"""Reads what a folder with a PEFT adapter says of itself. Only plain LoRA and rsLoRA are merged.

The format: https://huggingface.co/docs/peft/main/en/developer_guides/checkpoint. LoRA: https://arxiv.org/abs/2106.09685,
rsLoRA: https://arxiv.org/abs/2312.03732.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Fields that change what an adapter computes. Each has to be empty, or to be this value.
REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA",
    "modules_to_save": "LoRA with whole layers beside it (modules_to_save)",
    "fan_in_fan_out": "LoRA for transposed layers (fan_in_fan_out)",
    "alpha_pattern": "LoRA with an alpha for each layer (alpha_pattern)",
    "lora_bias": "LoRA with biases (lora_bias)",
    "trainable_token_indices": "LoRA with trained tokens (trainable_token_indices)",
    "target_parameters": "LoRA for single parameters (target_parameters)",
    "layer_replication": "LoRA with repeated layers (layer_replication)",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QALoRA",
}


def read(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of the folder; empty where it has none that can be read."""
    try:
        value = json.loads((folder / CONFIG).read_text("utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def obstacle(folder: Path, label: str) -> str:
    """Why the adapter cannot be merged, as a sentence that names its kind; empty where it can."""
    config = read(folder)
    if not config:
        return f"{label} has no readable {CONFIG}. Save the adapter again."
    kind = str(config.get("peft_type"))
    refused = [name for field, name in REFUSED.items() if config.get(field)]
    if kind != "LORA":
        refused = [f"of the kind {kind[:40]}"]
    if config.get("bias", "none") != "none":
        refused.append("LoRA with trained biases")
    if refused:
        kind = f"{label} is an adapter {refused[0]}"
        return f"{kind}, which cannot be merged here. Merge it with peft, and save the model."
    if not (folder / WEIGHTS).is_file():
        return f"{label} is an adapter without {WEIGHTS}. Save it in the safetensors format."
    if not base_of(folder):
        return f"{label} is an adapter that does not name its base model. Set base_model_name_or_path in {CONFIG}."
    if not isinstance(config.get("lora_alpha"), int | float) or not isinstance(config.get("r"), int):
        return f"{label} is an adapter without numbers for r and lora_alpha in {CONFIG}. Save the adapter again."
    return ""


def base_of(folder: Path) -> str:
    """What the adapter names as its base model: a name on the Hub, or a folder."""
    base = read(folder).get("base_model_name_or_path")
    return base if isinstance(base, str) else ""


def scale(folder: Path, rank: int) -> float:
    """What the product of the two matrices of that rank is multiplied by."""
    config = read(folder)
    return float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
