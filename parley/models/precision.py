"""In which numbers the weights of a model can be held, on each kind of device, the best first."""

from collections.abc import Callable
from dataclasses import dataclass

from parley.models.hardware import Machine

WORTH_INT8 = 50_000_000  # parameters; smaller models are fast enough in floats, which are exact
OPENVINO = "openvino"
STORED = "stored"  # the type of numbers in the files
HALF = "half"  # bfloat16, on older cards float16


@dataclass(frozen=True)
class Precision:
    """One row of the table."""

    name: str  # what `QUANTIZATION` calls it
    dtype: str  # for what is not quantised
    weight: float  # bytes, with the scales that go with it
    by: str = ""  # whose layers; empty where they are not quantised
    packages: tuple[str, ...] = ()
    capability: tuple[int, int] = (0, 0)  # of the card, at least
    chosen: Callable[[Machine, float], bool] = lambda machine, parameters: True  # when "auto" may take it

    def missing(self, machine: Machine) -> str:
        """What this machine lacks for it, and the command if that can be installed; empty for nothing."""
        if any(card.capability < self.capability for card in machine.cards):
            return "a card of compute capability {}.{}".format(*self.capability)
        absent = [name for name in self.packages if name not in machine.packages]
        return f"{' and '.join(absent)}: pip install {' '.join(absent)}" if absent else ""


def _is_large(machine: Machine, parameters: float) -> bool:
    return parameters >= WORTH_INT8


def _pays(machine: Machine, parameters: float) -> bool:
    return _is_large(machine, parameters) and machine.has_vnni


BITSANDBYTES, TORCHAO = ("accelerate", "bitsandbytes"), ("accelerate", "torchao")

# Where two libraries have the same numbers, the first that is installed is taken. Those of bitsandbytes come first for
# int8, which torchao has to be compiled for; torchao's first for int4.
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cpu": (
        Precision("int8", "float32", 1, OPENVINO, chosen=_is_large),
        Precision("none", "float32", 4, OPENVINO, chosen=lambda machine, parameters: parameters < WORTH_INT8),
        # For models that OpenVINO does not run. These layers are faster than floats where bytes are multiplied by
        # instructions of their own (VNNI); elsewhere they are for models that do not fit in floats.
        Precision("int8", STORED, 1, "parley", chosen=_pays),
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
# What reading weights needs that were quantised by others, by the name in their configuration.
QUANTISERS: dict[str, tuple[str, ...]] = {
    "fp8": ("accelerate",),
    "bitsandbytes": BITSANDBYTES,
    "torchao": TORCHAO,
    "mxfp4": ("accelerate", "kernels"),
    "gptq": ("accelerate", "gptqmodel", "optimum"),
    "awq": ("accelerate", "gptqmodel"),
    "compressed-tensors": ("accelerate", "compressed-tensors"),
}
