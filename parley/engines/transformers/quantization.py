"""How a model is read for its plan: what `from_pretrained` is called with, and what is done to it afterwards."""

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


def _torchao_fp8(fit: LoadPlan) -> TorchAoConfig:
    from torchao.quantization import PerRow

    return _torchao("Float8DynamicActivationFloat8WeightConfig", granularity=PerRow())


CONFIGS: dict[tuple[str, str], Callable[[LoadPlan], Any]] = {
    ("bitsandbytes", "int8"): lambda fit: BitsAndBytesConfig(load_in_8bit=True),
    ("bitsandbytes", "int4"): lambda fit: BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=fit.dtype
    ),
    ("torchao", "int8"): lambda fit: _torchao("Int8WeightOnlyConfig"),
    # The layout of the products for few tokens, which torch itself has.
    ("torchao", "int4"): lambda fit: _torchao("Int4WeightOnlyConfig", int4_packing_format="tile_packed_to_4d"),
    ("torchao", "fp8"): _torchao_fp8,
    ("transformers", "fp8"): lambda fit: FineGrainedFP8Config(),
}


def arguments(fit: LoadPlan) -> dict[str, Any]:
    """For `from_pretrained`."""
    config = CONFIGS.get((fit.by, fit.quantization))
    return {
        "dtype": "auto" if fit.dtype == STORED else fit.dtype,
        # Left to transformers where it would choose the same.
        **({"attn_implementation": fit.attention} if fit.attention in attention.FLASH else {}),
        **({"device_map": "auto" if fit.cards > 1 else {"": 0}} if fit.placed else {}),
        **({"quantization_config": config(fit)} if config else {}),
    }


def finish(model: PreTrainedModel, fit: LoadPlan) -> None:
    """Changes a model that was read with these arguments in place, where its layers are ours."""
    if (fit.by, fit.quantization) == ("parley", "int8"):
        int8_linear.quantise(model)
