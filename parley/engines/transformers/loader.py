"""Loads a model of transformers from its folder, with the number format and the attention of the load plan."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from parley.engines import load_errors
from parley.engines.checkpoint import Checkpoint
from parley.engines.load_errors import Unloadable
from parley.engines.tensors import tensor
from parley.engines.transformers import quantization
from parley.errors import ModelUnavailable
from parley.models import attention
from parley.models.load_plan import LoadPlan

_log = logging.getLogger(__name__)


def load(checkpoint: Checkpoint, plan: LoadPlan) -> tuple[PreTrainedModel, LoadPlan]:
    """The model, and the plan that was carried out. If the planned FlashAttention fails, plain attention is used."""
    try:
        return _read_model(checkpoint, plan), plan
    except Unloadable:
        if plan.attention not in attention.FLASH:
            raise
    _log.warning("%s is loaded without %s", checkpoint.spec.name, attention.LABELS[plan.attention])
    model = _read_model(checkpoint, replace(plan, attention=attention.EAGER))
    return model, replace(plan, attention=model.config._attn_implementation)


def _read_model(checkpoint: Checkpoint, plan: LoadPlan) -> PreTrainedModel:
    spec = checkpoint.spec
    try:
        options: dict[str, Any] = {"output_loading_info": True, **quantization.arguments(plan)}
        if checkpoint.plain:
            options |= {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
            model, info = AutoModelForCausalLM.from_pretrained(checkpoint.folder, **options)
        else:
            model, info = _convert(checkpoint, plan, options)
    except ModelUnavailable:
        raise
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


def _convert(
    checkpoint: Checkpoint, plan: LoadPlan, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model of a checkpoint that is no plain folder, from its tensors as floats, and what was missing."""
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    tensors, dtype = checkpoint.tensors(), getattr(torch, plan.dtype)
    held = [name for name in empty.state_dict() if tensors.stored_name(name) is not None]
    state = {name: tensor(tensors, name).to(dtype) for name in held}
    return type(empty).from_pretrained(None, config=config, state_dict=state, **options)
