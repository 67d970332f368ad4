"""Quantization by the load plan: the arguments for `from_pretrained`, and Parley's own int8 layers afterwards."""

from collections.abc import Callable
from typing import Any

from transformers import BitsAndBytesConfig, FineGrainedFP8Config, PreTrainedModel, TorchAoConfig

from parley.engines.transformers import int8_linear
from parley.models import attention
from parley.models.load_plan import LoadPlan
from parley.models.precision import STORED


def _torchao(name: str, **options: Any) -> TorchAoConfig:
    from torchao import quantization

    return TorchAoConfig(getattr(quantization, name)(**options))


def _torchao_fp8(plan: LoadPlan) -> TorchAoConfig:
    from torchao.quantization import PerRow

    return _torchao("Float8DynamicActivationFloat8WeightConfig", granularity=PerRow())


CONFIGS: dict[tuple[str, str], Callable[[LoadPlan], Any]] = {
    ("bitsandbytes", "int8"): lambda plan: BitsAndBytesConfig(load_in_8bit=True),
    ("bitsandbytes", "int4"): lambda plan: BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=plan.dtype
    ),
    ("torchao", "int8"): lambda plan: _torchao("Int8WeightOnlyConfig"),
    # The kernel for this layout is part of torch.
    ("torchao", "int4"): lambda plan: _torchao("Int4WeightOnlyConfig", int4_packing_format="tile_packed_to_4d"),
    ("torchao", "fp8"): _torchao_fp8,
    ("transformers", "fp8"): lambda plan: FineGrainedFP8Config(),
}


def arguments(plan: LoadPlan) -> dict[str, Any]:
    """The arguments for `from_pretrained`."""
    config = CONFIGS.get((plan.by, plan.quantization))
    return {
        "dtype": "auto" if plan.dtype == STORED else plan.dtype,
        # Set only for FlashAttention; otherwise transformers chooses.
        **({"attn_implementation": plan.attention} if plan.attention in attention.FLASH else {}),
        **({"device_map": "auto" if plan.cards > 1 else {"": 0}} if plan.placed else {}),
        **({"quantization_config": config(plan)} if config else {}),
    }


def finish(model: PreTrainedModel, plan: LoadPlan) -> None:
    """Quantizes the loaded model in place, if the plan uses Parley's own int8 layers."""
    if (plan.by, plan.quantization) == ("parley", "int8"):
        int8_linear.quantise(model)
