"""A model of transformers from its folder, in the numbers and with the attention that were planned."""

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
    """The model, and the plan as it could be kept: an attention that cannot be had is done without."""
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
        model, told = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **quantization.arguments(plan),
        )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise load_errors.too_large(spec) from error
    except Exception as error:  # as above: SafetensorError, RuntimeError for shapes, ImportError for kernels, …
        raise load_errors.unsuitable(spec, "weights", error) from error
    if missing := sorted(map(str, (*told["missing_keys"], *told["mismatched_keys"]))):
        raise load_errors.incomplete(spec, missing)
    if not {"cpu", "disk"}.isdisjoint(map(str, getattr(model, "hf_device_map", {}).values())):
        raise load_errors.too_large(spec)  # what is left outside of the cards would take seconds a token
    quantization.finish(model, plan)
    return model
