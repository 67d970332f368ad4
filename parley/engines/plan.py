"""The plan for the hardware: in which numbers a model is loaded here, what that needs, and whether it fits.

`QUANTIZATION` is "auto" (what is left out means the same), "none", "int8" or "int4".
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parley.engines import hardware
from parley.engines.hub import ModelRow, size_text
from parley.errors import ModelUnavailable

if TYPE_CHECKING:
    import torch

WORKING_SPACE = 1.2  # memory for the weights, and a fifth more for activations and the KV cache
QUANTIZATIONS = ("auto", "none", "int8", "int4")
WORTH_INT8 = 50_000_000  # parameters; the layers of smaller models lie in the processor's cache anyway
ON_GPU = {"int8": 1.1, "int4": 0.65}  # bytes a parameter: one or a half, the embedding and the scales
LABELS = {"float32": "32-bit floats", "bfloat16": "bfloat16", "float16": "float16", "auto": "as it was quantised"}


@dataclass(frozen=True)
class Fit:
    """How a model is loaded, and what that takes."""

    device: str
    dtype: "torch.dtype | str"  # "auto": as it is stored
    quantization: str  # "none", "int8" or "int4"
    need: int  # bytes for the weights and what computing with them takes
    cache: int | None  # bytes of keys and values for 1,000 tokens; None where the configuration does not tell

    @property
    def numbers(self) -> str:
        """In a word, what the weights are: "int8", "float32", …"""
        stored = "quantised" if self.dtype == "auto" else str(self.dtype).removeprefix("torch.")
        return stored if self.quantization == "none" else self.quantization

    @property
    def sentence(self) -> str:
        """For people: what it runs on, in which numbers, and what it takes."""
        numbers = {"none": LABELS[str(self.dtype).removeprefix("torch.")]}.get(self.quantization, self.quantization)
        device = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}[self.device]
        cache = f", {size_text(self.cache)} more for each 1,000 tokens" if self.cache else ""
        return f"{device}, {numbers}: about {size_text(self.need)} of memory{cache}."


def decide(
    row: ModelRow,
    config: Mapping[str, Any],
    size: int,
    room: Callable[[int], int],
    environ: Mapping[str, str] = os.environ,
) -> Fit:
    """The first plan that fits: `size` is the bytes of the stored weights, `room` as `loading.load` takes it.

    Raises `ModelUnavailable` for what does not fit, with the figures, and for a `QUANTIZATION` that cannot be had.
    """
    wanted = environ.get("QUANTIZATION", "").strip() or "auto"
    if wanted not in QUANTIZATIONS:
        raise ModelUnavailable(f"QUANTIZATION is {wanted!r}. Set it to one of {', '.join(QUANTIZATIONS)}.")
    need = free = 0
    for fit in _choices(row, config, size, wanted):
        need = fit.need
        free = room(need)
        if need <= free:
            return fit
    raise ModelUnavailable(
        f"{row.label} needs about {size_text(need)} of memory, and {size_text(free)} are free. Choose a smaller model."
    )


def _choices(row: ModelRow, config: Mapping[str, Any], size: int, wanted: str) -> Iterator[Fit]:
    """The best first."""
    import torch

    text = config.get("text_config")
    texts = (config, text if isinstance(text, Mapping) else {})
    parameters = _parameters(texts, size)
    device = hardware.device()

    def fit(dtype: "torch.dtype | str", bytes: float, quantization: str = "none") -> Fit:
        cache = kv_bytes(texts[1] or config, 4 if device == "cpu" and dtype in (torch.float32, "auto") else 2)
        return Fit(device, dtype, quantization, int(WORKING_SPACE * bytes), cache)

    if config.get("quantization_config"):
        yield fit("auto", size)
    elif device == "cpu":
        if wanted == "int4":
            raise ModelUnavailable("QUANTIZATION is int4, which needs a GPU. Set it to auto, none or int8.")
        if wanted == "int8" or (wanted == "auto" and parameters >= WORTH_INT8 and hardware.multiplies_bytes()):
            yield fit("auto", size, "int8")  # read as it is stored, then made smaller layer by layer
        if wanted != "int8":
            yield fit(torch.float32, 4 * parameters)
            yield fit(torch.bfloat16, 2 * parameters)
    elif device == "mps":
        if wanted in ("int8", "int4"):
            raise ModelUnavailable(
                f"QUANTIZATION is {wanted}, which Apple's GPUs do not have. Set it to auto or none."
            )
        yield fit(torch.float16, 2 * parameters)
    else:
        half = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
        if wanted in ("auto", "none"):
            yield fit(half, 2 * parameters)
        installed = importlib.util.find_spec("bitsandbytes") is not None
        if wanted in ("int8", "int4") and not installed:
            raise ModelUnavailable(f"QUANTIZATION is {wanted}, which needs bitsandbytes: pip install bitsandbytes.")
        for name, bytes in ON_GPU.items():
            if installed and wanted in ("auto", name):
                yield fit(half, bytes * parameters, name)


def gpu_need(config: Mapping[str, Any], size: int, environ: Mapping[str, str] = os.environ) -> int:
    """Bytes of a GPU's memory for stored weights of so many bytes, as far as can be told without a GPU."""
    if config.get("quantization_config"):
        return int(WORKING_SPACE * size)
    return int(WORKING_SPACE * _parameters((config,), size) * ON_GPU.get(environ.get("QUANTIZATION", "").strip(), 2))


def _parameters(configs: Sequence[Mapping[str, Any]], size: int) -> float:
    stored = next((c[key] for c in configs for key in ("dtype", "torch_dtype") if c.get(key)), "bfloat16")
    return size / {"float64": 8, "float32": 4}.get(stored, 2)


def kv_bytes(config: Mapping[str, Any], width: int) -> int | None:
    """The keys and values of 1,000 tokens in bytes, with numbers of `width` bytes; None where it cannot be told."""
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    grouped = config.get("num_key_value_heads") or heads
    size = config.get("head_dim")
    if not size and isinstance(heads, int) and heads > 0 and isinstance(hidden := config.get("hidden_size"), int):
        size = hidden // heads
    if not all(isinstance(n, int) and n > 0 for n in (layers, grouped, size)):
        return None
    return 2 * layers * grouped * size * width * 1000
