"""Loads a model of transformers from its folder, with the number format and the attention of the load plan."""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from parley.engines import load_errors
from parley.engines.load_errors import Unloadable
from parley.engines.transformers import quantization
from parley.models import attention
from parley.models.load_plan import LoadPlan
from parley.models.spec import ModelSpec

_log = logging.getLogger(__name__)


def load(spec: ModelSpec, folder: Path, plan: LoadPlan) -> tuple[PreTrainedModel, LoadPlan]:
    """The model, and the plan that was carried out. If the planned FlashAttention fails, plain attention is used."""
    try:
        return _read_model(spec, folder, plan), plan
    except Unloadable:
        if plan.attention not in attention.FLASH:
            raise
    _log.warning("%s is loaded without %s", spec.name, attention.LABELS[plan.attention])
    model = _read_model(spec, folder, replace(plan, attention=attention.EAGER))
    return model, replace(plan, attention=model.config._attn_implementation)


def _read_model(spec: ModelSpec, folder: Path, plan: LoadPlan) -> PreTrainedModel:
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **quantization.arguments(plan),
        )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise load_errors.too_large(spec) from error
    except Exception as error:  # SafetensorError, RuntimeError for shapes, ImportError for kernels, …
        raise load_errors.unsuitable(spec, "weights", error) from error
    if missing := sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"]))):
        raise load_errors.incomplete(spec, missing)
    if not {"cpu", "disk"}.isdisjoint(map(str, getattr(model, "hf_device_map", {}).values())):
        raise load_errors.too_large(spec)  # with layers outside of the GPUs a token would take seconds
    quantization.finish(model, plan)
    return model
