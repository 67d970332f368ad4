"""The number formats for the weights of a model on each kind of device, best first."""

from collections.abc import Callable
from dataclasses import dataclass

from parley.models.hardware import Machine

MIN_INT8_PARAMETERS = 50_000_000  # smaller models are fast enough in floats, which are exact
OPENVINO = "openvino"
# The most by which rounded weights moved a probability, compared with floats of 64 bits, by number format: 0.03 with
# Budgie and 0.12 with SmolLM2-135M, over 300 tokens and more and their likeliest candidates.
MEASURED_ROUNDING = {"int8": 0.13}
STORED = "stored"  # the dtype of the files
HALF = "half"  # bfloat16, or float16 on older GPUs


@dataclass(frozen=True)
class Precision:
    """One number format with the library that implements it."""

    name: str  # as in `QUANTIZATION`
    dtype: str  # of the parameters that are not quantised
    weight: float  # bytes for each weight, including its share of the scales
    by: str = ""  # the library with the quantised layers; empty without quantisation
    packages: tuple[str, ...] = ()
    capability: tuple[int, int] = (0, 0)  # the minimum compute capability of the GPU
    chosen: Callable[[Machine, float], bool] = lambda machine, parameters: True  # whether "auto" may use it

    def missing(self, machine: Machine) -> str:
        """What this machine lacks for it, with the command to install it; empty where nothing is missing."""
        if any(card.capability < self.capability for card in machine.cards):
            return "a card of compute capability {}.{}".format(*self.capability)
        absent = [name for name in self.packages if name not in machine.packages]
        return f"{' and '.join(absent)}: pip install {' '.join(absent)}" if absent else ""


def _is_large(machine: Machine, parameters: float) -> bool:
    return parameters >= MIN_INT8_PARAMETERS


def _is_large_with_vnni(machine: Machine, parameters: float) -> bool:
    return _is_large(machine, parameters) and machine.has_vnni


BITSANDBYTES, TORCHAO = ("accelerate", "bitsandbytes"), ("accelerate", "torchao")

# Of two libraries with the same format, the first one that is installed is used. For int8 bitsandbytes comes first,
# because torchao needs compilation there. For int4 torchao comes first.
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cpu": (
        Precision("int8", "float32", 1, OPENVINO, chosen=_is_large),
        Precision("none", "float32", 4, OPENVINO, chosen=lambda machine, parameters: parameters < MIN_INT8_PARAMETERS),
        # For models that OpenVINO does not support. Our int8 layers are faster than floats on CPUs with VNNI. On other
        # CPUs they are only for models that do not fit in floats.
        Precision("int8", STORED, 1, "parley", chosen=_is_large_with_vnni),
        Precision("none", "float32", 4),
        Precision("int8", STORED, 1, "parley", chosen=lambda machine, parameters: not machine.has_vnni),
    ),
    "mps": (Precision("none", "float16", 2),),
    "cuda": (
        Precision("none", HALF, 2),
        Precision("fp8", HALF, 1, "torchao", TORCHAO, (8, 9)),
        Precision("fp8", HALF, 1, "transformers", ("accelerate", "kernels"), (8, 9)),
        Precision("int8", HALF, 1, "bitsandbytes", BITSANDBYTES),
        Precision("int8", HALF, 1, "torchao", TORCHAO),
        Precision("int4", HALF, 0.54, "torchao", TORCHAO, (8, 0)),
        Precision("int4", HALF, 0.56, "bitsandbytes", BITSANDBYTES),
    ),
}
# The packages for weights that are stored quantised, by the `quant_method` in the config.
QUANTISERS: dict[str, tuple[str, ...]] = {
    "fp8": ("accelerate",),
    "bitsandbytes": BITSANDBYTES,
    "torchao": TORCHAO,
    "mxfp4": ("accelerate", "kernels"),
    "gptq": ("accelerate", "gptqmodel", "optimum"),
    "awq": ("accelerate", "gptqmodel"),
    "compressed-tensors": ("accelerate", "compressed-tensors"),
}
