"""The plan for the hardware: how a model is loaded and run here, what that takes, and whether it fits.

`QUANTIZATION` is "auto" (what is left out means the same), "none", "int8" or "int4"; `COMPILE` is "auto", "off" or
"on", and "auto" means "off": compiling takes a minute of every loading.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parley.engines import attention
from parley.engines.hardware import Machine, machine
from parley.engines.hub import ModelRow, size_text
from parley.engines.precision import HALF, PRECISIONS, QUANTISERS, STORED, Precision
from parley.errors import ModelUnavailable

WORKING_SPACE = 1.2  # memory for the weights, and a fifth more for activations and the KV cache
SETTINGS = {"QUANTIZATION": ("auto", "none", "int8", "int4"), "COMPILE": ("auto", "off", "on")}
LABELS = {
    "cpu": "CPU",
    "mps": "Apple GPU",
    "cuda": "GPU",
    "float32": "32-bit floats",
    "quantised": "as it was quantised",
    **attention.LABELS,
}


@dataclass(frozen=True)
class Fit:
    """How a model is loaded and run, and what that takes."""

    device: str
    dtype: str  # as torch calls it; `STORED`: as it is in the files
    quantization: str  # "none", "fp8", "int8" or "int4"
    by: str  # whose layers these are; empty for "none"
    attention: str  # as transformers calls it
    cards: int  # that it is spread over
    compiled: bool
    weights: int  # bytes, once it is loaded
    need: int  # bytes that have to be free: for the weights, for loading them and for computing with them
    cache: int | None  # bytes of keys and values for 1,000 tokens; None where the configuration does not tell

    @property
    def placed(self) -> bool:
        """Whether it is on the GPU as soon as it is loaded, and cannot be moved."""
        return self.device == "cuda" and (self.cards > 1 or self.quantization != "none" or self.dtype == STORED)

    @property
    def numbers(self) -> str:
        """In a word, what the weights are: "int8", "float32", …"""
        stored = "quantised" if self.dtype == STORED else self.dtype
        return stored if self.quantization == "none" else self.quantization

    @property
    def sentence(self) -> str:
        """For people: what it runs on and how, and what it takes."""
        device = LABELS[self.device] if self.cards < 2 else f"{self.cards} GPUs"
        numbers = LABELS.get(self.numbers, self.numbers)
        how = [device, numbers, LABELS[self.attention], *(["compiled"] if self.compiled else [])]
        cache = f", {size_text(self.cache)} more for each 1,000 tokens" if self.cache else ""
        return f"{', '.join(how)}: {size_text(self.weights)} of memory{cache}"


@dataclass(frozen=True)
class Outlook:
    """Whether and how a model can be run here, before it is loaded."""

    label: str
    fit: Fit | None = None  # the first that fits, else the last that was tried
    free: int | None = None  # bytes, for that one
    refusal: str = ""  # a sentence; there is no fit then

    @property
    def fits(self) -> bool:
        """Whether it can be loaded."""
        return self.fit is not None and self.fit.need <= self.free

    @property
    def sentence(self) -> str:
        """For people, with all figures."""
        if self.fit is None:
            return self.refusal
        need, free = size_text(self.fit.need), size_text(self.free)
        if self.fits:
            return f"{self.fit.sentence}; {free} free."
        return f"{self.label} needs about {need} of memory, and {free} are free. Choose a smaller model."

    @property
    def figures(self) -> dict[str, int | bool | None]:
        """For programs: bytes, and whether it fits."""
        fit = self.fit
        return {
            "fits": self.fits,
            "weights": fit and fit.weights,
            "needed": fit and fit.need,
            "per_1000_tokens": fit and fit.cache,
            "free": self.free,
        }


def consider(
    row: ModelRow,
    config: Mapping[str, Any],
    size: int,
    room: Callable[[Fit], int],
    *,
    here: Machine | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Outlook:
    """The first plan that fits, the best first; where none does, the last, which needs least.

    `size` is the bytes of the stored weights; `room` takes a plan, may free memory for it, and returns how many bytes
    are free. Refuses a `QUANTIZATION` or a `COMPILE` that cannot be had.
    """
    try:
        for fit in _choices(config, size, here or machine(), environ):
            outlook = Outlook(row.label, fit, room(fit))
            if outlook.fits:
                break
    except ModelUnavailable as refusal:
        return Outlook(row.label, refusal=str(refusal))
    return outlook


def _choices(config: Mapping[str, Any], size: int, here: Machine, environ: Mapping[str, str]) -> Iterator[Fit]:
    """The best first; at least one."""
    wanted, compiled = _setting("QUANTIZATION", environ), _setting("COMPILE", environ) == "on"
    if compiled and (obstacle := _no_compiling(here)):
        raise ModelUnavailable(f"COMPILE is on, {obstacle}. Set it to off.")
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    stored = next((c[key] for c in (config, text) for key in ("dtype", "torch_dtype") if c.get(key)), "bfloat16")
    width = {"float64": 8, "float32": 4}.get(str(stored), 2)
    half = "bfloat16" if all(card.capability >= (8, 0) for card in here.cards) else "float16"
    kind = attention.choose(config, here)
    quantised = config.get("quantization_config")
    quantised = quantised if isinstance(quantised, Mapping) else {}
    for row in [_as_stored(quantised, here)] if quantised else _precisions(here, wanted, size / width):
        dtype = half if row.dtype == HALF else row.dtype
        weights = size if quantised else _weights(row, text, size, width)
        working = WORKING_SPACE * (max(weights, size) if row.dtype == STORED else weights)
        numbers = 4 if here.device == "cpu" and dtype in ("float32", STORED) else 2
        for cards in dict.fromkeys((1, len(here.cards) if here.cards and "accelerate" in here.packages else 1)):
            yield Fit(
                device=here.device,
                dtype=dtype,
                quantization=row.name,
                by=row.by,
                attention=kind,
                cards=cards,
                compiled=compiled and cards == 1,
                weights=int(weights),
                need=int(working),
                cache=kv_bytes(text, numbers),
            )


def _setting(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "").strip() or "auto"
    if value not in SETTINGS[name]:
        raise ModelUnavailable(f"{name} is {value!r}. Set it to one of {', '.join(SETTINGS[name])}.")
    return value


def _no_compiling(here: Machine) -> str:
    """Why nothing can be compiled here, as the end of a sentence; empty where it can."""
    if here.zerogpu:
        return "which ZeroGPU does not allow"
    if here.device == "mps":
        return "which Apple's GPUs are not made for yet"
    needs = "a C++ compiler and the headers of Python" + (" and Triton" if here.device == "cuda" else "")
    return "" if here.compiles else f"which needs {needs}: apt install g++ python3-dev, or the like"


def _precisions(here: Machine, wanted: str, parameters: float) -> list[Precision]:
    """The rows to try; raises `ModelUnavailable` where there is none."""
    rows = [row for row in PRECISIONS[here.device] if wanted in ("auto", row.name)]
    if not rows:
        raise ModelUnavailable(f"QUANTIZATION is {wanted}, which {LABELS[here.device]}s do not have. Set it to auto.")
    missing = {row: row.missing(here) for row in rows}
    had = [row for row in rows if not missing[row] and (wanted != "auto" or row.chosen(here, parameters))]
    if not had:
        needs = " (or ".join(missing.values()) + ")" * (len(rows) - 1)
        raise ModelUnavailable(f"QUANTIZATION is {wanted}, which needs {needs}. Set it to auto.")
    return had


def _as_stored(quantised: Mapping[str, Any], here: Machine) -> Precision:
    """The row for weights that were quantised by whoever saved them."""
    method = str(quantised.get("quant_method"))
    row = Precision("none", STORED, 0, packages=QUANTISERS.get(method, ("accelerate",)))
    if missing := row.missing(here):
        raise ModelUnavailable(f"This model is quantised with {method}, which needs {missing}.")
    return row


def _weights(row: Precision, text: Mapping[str, Any], size: int, width: int) -> float:
    """The bytes of the weights once they are loaded, for `size` of them in numbers of `width` bytes."""
    sizes = text.get("vocab_size"), text.get("hidden_size")
    tied = text.get("tie_word_embeddings") is True
    words = sizes[0] * sizes[1] if all(isinstance(n, int) for n in sizes) else 0
    words = min(words, size // width // (1 if tied else 2))
    layers = size / width - words * (1 if tied else 2)
    outer = {"float32": 4, STORED: width}.get(row.dtype, 2)  # bytes of what is not quantised
    # Our own layers have a head of one byte beside the embedding; in other cases it is like it, or the same.
    head = 1 if row.by == "parley" else 0 if tied else outer
    return layers * row.weight + words * (outer + head)


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
