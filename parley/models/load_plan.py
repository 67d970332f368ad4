"""Chooses how to run a model on this machine: the engine, the number format, the memory, and whether it fits.

`ENGINE` and `QUANTIZATION` of the owner restrict the choice.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from parley.config import ENGINE, MAX_CACHE_MEGABYTES, QUANTIZATION
from parley.errors import ModelUnavailable
from parley.models import attention
from parley.models.hardware import Machine, machine
from parley.models.precision import HALF, MEASURED_ROUNDING, OPENVINO, PRECISIONS, QUANTISERS, STORED, Precision
from parley.models.spec import ModelSpec, size_text

MEMORY_FACTOR = 1.2  # the memory of the weights, plus a fifth for activations and the KV cache
TEXTS = {
    "memory": "{engine}: {memory} of memory",
    "cache": "{plan}, {memory} more for each 1,000 tokens",
    "free": "{plan}; {free} free.",
}
LABELS = {
    "cpu": "CPU",
    "mps": "Apple GPU",
    "cuda": "GPU",
    "float32": "32-bit floats",
    "quantised": "as it was quantised",
    **attention.LABELS,
}
COPIES = 2  # of the weights in OpenVINO, which packs a second copy of the constants
# Bytes of working memory for one layer in OpenVINO. Measured: 7 to 11 MB for models of 135M and 0.6B parameters.
LAYER_WORK = 8_000_000
OPENVINO_MARGIN = 1.1  # for other memory, and for the peak while loading
KV_SHARE = 4  # the KV pool gets one part in this many of the remaining memory
MIN_KV_TOKENS, MAX_KV_TOKENS = 8192, 131_072
KV_CONTEXTS = 16  # the KV pool holds at most this many full context windows
USUAL_CONTEXT = 4096  # tokens, for a config without a context length


@dataclass(frozen=True)
class LoadPlan:
    """How a model is loaded and run, and how much memory that needs."""

    device: str
    engine: str  # "openvino" or "transformers"
    dtype: str  # as in torch; `STORED`: that of the files
    quantization: str  # "none", "fp8", "int8" or "int4"
    by: str  # the library with the quantised layers; empty for "none"
    attention: str  # as transformers calls it
    cards: int  # the number of GPUs that the model is spread over
    weights: int  # bytes of the loaded weights
    need: int  # bytes that have to be free: for the weights, for loading them and for computing with them
    cache: int | None  # bytes of keys and values for 1,000 tokens; None where the config does not tell
    threads: int = 1  # of OpenVINO
    kv_tokens: int = 0  # the size of the KV pool of OpenVINO

    @property
    def placed(self) -> bool:
        """Whether loading puts it on the GPU, from where it cannot be moved."""
        return self.device == "cuda" and (self.cards > 1 or self.quantization != "none" or self.dtype == STORED)

    @property
    def rounds(self) -> bool:
        """Whether the weights in memory have fewer bits than in the files."""
        return self.quantization != "none"

    @property
    def numbers(self) -> str:
        """The number format of the weights: "int8", "float32", …"""
        stored = "quantised" if self.dtype == STORED else self.dtype
        return stored if self.quantization == "none" else self.quantization

    @property
    def rounding(self) -> float | None:
        """The most by which the rounded weights moved a probability where it was measured; None for other formats."""
        return MEASURED_ROUNDING.get(self.numbers) if self.rounds else None

    @property
    def in_company(self) -> str:
        """What the engine promises of an answer while others run, compared with the same one alone."""
        if self.engine == OPENVINO:
            return "equal bits"
        promises = {"float32": "the same tokens", "int8": "other tokens are possible"}
        return promises.get(self.numbers, "not measured") if self.device == "cpu" else "not measured"

    @property
    def sentence(self) -> str:
        """A description for people: the device, the number format, the engine and the memory."""
        device = LABELS[self.device] if self.cards < 2 else f"{self.cards} GPUs"
        how = "OpenVINO" if self.engine == OPENVINO else LABELS[self.attention]
        numbers = LABELS.get(self.numbers, self.numbers)
        plan = f"{device}, {numbers}, " + TEXTS["memory"].format(engine=how, memory=size_text(self.weights))
        return TEXTS["cache"].format(plan=plan, memory=size_text(self.cache)) if self.cache else plan


@dataclass(frozen=True)
class LoadEstimate:
    """Whether and how a model can run here, before it is loaded."""

    label: str
    plan: LoadPlan | None = None  # the first plan that fits, or the last one that was tried
    free: int = 0  # free bytes for that plan
    refusal: str = ""  # a sentence, in place of a plan
    smaller: LoadPlan | None = None  # a plan that would fit if the owner chose it

    @property
    def fits(self) -> bool:
        """Whether it can be loaded."""
        return self.plan is not None and self.plan.need <= self.free

    @property
    def sentence(self) -> str:
        """The estimate for people, with all figures."""
        if self.plan is None:
            return self.refusal
        need, free = size_text(self.plan.need), size_text(self.free)
        if self.fits:
            return TEXTS["free"].format(plan=self.plan.sentence, free=free)
        smaller = self.smaller and f"Set QUANTIZATION to int8, which needs {size_text(self.smaller.need)}, or choose"
        return (
            f"{self.label} needs about {need} of memory, and {free} are free. {smaller or 'Choose'} a smaller model."
        )

    @property
    def figures(self) -> dict[str, int | bool | None]:
        """The estimate for programs: the figures in bytes, and whether the model fits."""
        plan = self.plan
        if plan is None:
            return dict.fromkeys(("weights", "needed", "per_1000_tokens", "free")) | {"fits": False}
        return {
            "fits": self.fits,
            "weights": plan.weights,
            "needed": plan.need,
            "per_1000_tokens": plan.cache,
            "free": self.free,
        }


def choose_load_plan(
    spec: ModelSpec,
    config: Mapping[str, Any],
    size: int,
    available_bytes: Callable[[LoadPlan], int],
    *,
    here: Machine | None = None,
    environ: Mapping[str, str] = os.environ,
    refused: str = "",
) -> LoadEstimate:
    """Chooses the best plan that fits; where none fits, the last one, which needs the least memory.

    `size` is the number of bytes of the stored weights. `available_bytes` takes a plan, may free memory for it, and
    returns the number of free bytes. `refused` says why OpenVINO has already failed with this model. The estimate has
    a refusal where the owner's settings cannot be met.
    """
    here = here or machine()
    if here.zerogpu and spec.cpu_on_zerogpu:
        here = here.without_gpu
    try:
        for plan in _choices(config, size, here, environ, refused):
            estimate = LoadEstimate(spec.label, plan, available_bytes(plan))
            if estimate.fits:
                return replace(estimate, plan=_with_pool(plan, estimate.free, _context(config)))
    except ModelUnavailable as refusal:
        return LoadEstimate(spec.label, refusal=str(refusal))
    if plan.engine == OPENVINO and plan.quantization == "none":
        for smaller in _choices(config, size, here, {**environ, "QUANTIZATION": "int8"}, refused):
            if smaller.need <= estimate.free:
                return replace(estimate, smaller=smaller)
    return estimate


def engine_obstacle(config: Mapping[str, Any], here: Machine, environ: Mapping[str, str] = os.environ) -> str:
    """Why OpenVINO cannot run this model here, as the end of a sentence; empty where it can."""
    from parley.models import families

    if here.device != "cpu":
        return "there is a GPU"
    if ENGINE.read(environ) == "transformers":
        return "ENGINE is transformers"
    try:
        return here.no_openvino or families.obstacle(families.read_config(config))
    except Exception as error:  # a config class may raise anything; the model may still run in transformers
        return f"its configuration is odd ({type(error).__name__})"


def _choices(
    config: Mapping[str, Any], size: int, here: Machine, environ: Mapping[str, str], refused: str
) -> Iterator[LoadPlan]:
    """The possible plans, best first; at least one."""
    wanted = QUANTIZATION.read(environ)
    obstacle = refused or engine_obstacle(config, here, environ)
    if obstacle and ENGINE.read(environ) == OPENVINO and here.device == "cpu":
        raise ModelUnavailable(f"ENGINE is openvino, which cannot run this model: {obstacle}. Set it to auto.")
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    stored = next((c[key] for c in (config, text) for key in ("dtype", "torch_dtype") if c.get(key)), "bfloat16")
    width = {"float64": 8, "float32": 4}.get(str(stored), 2)
    half = "bfloat16" if all(card.capability >= (8, 0) for card in here.cards) else "float16"
    kind = attention.choose(config, here)
    quantised = config.get("quantization_config")
    quantised = quantised if isinstance(quantised, Mapping) else {}
    rows = [_as_stored(quantised, here)] if quantised else _precisions(here, wanted, size / width, not obstacle)
    for row in rows:
        if row.by == OPENVINO:
            yield _openvino_plan(row, text, size / width, here.threads)
            continue
        dtype = half if row.dtype == HALF else row.dtype
        weights = size if quantised else _weights(row, text, size, width)
        working = MEMORY_FACTOR * (max(weights, size) if row.dtype == STORED else weights)
        numbers = 4 if here.device == "cpu" and dtype in ("float32", STORED) else 2
        for cards in dict.fromkeys((1, len(here.cards) if here.cards and "accelerate" in here.packages else 1)):
            yield LoadPlan(
                device=here.device,
                engine="transformers",
                dtype=dtype,
                quantization=row.name,
                by=row.by,
                attention=kind,
                cards=cards,
                weights=int(weights),
                need=int(working),
                cache=kv_bytes(text, numbers),
            )


def _openvino_plan(row: Precision, text: Mapping[str, Any], parameters: float, threads: int) -> LoadPlan:
    """The plan for OpenVINO. `need` includes the smallest KV pool."""
    layers = text.get("num_hidden_layers")
    weights = openvino_bytes(parameters * row.weight, layers if isinstance(layers, int) else 0)
    cache = kv_bytes(text, row.weight, OPENVINO_SCALES if row.name == "int8" else 0)
    pool = (cache or 0) * min(_context(text), MIN_KV_TOKENS) / 1000
    return LoadPlan(
        device="cpu",
        engine=OPENVINO,
        dtype="float32",
        quantization=row.name,
        by=row.by,
        attention=attention.EAGER,
        cards=1,
        weights=int(weights),
        need=int(OPENVINO_MARGIN * weights + pool),
        cache=cache,
        threads=threads,
    )


def openvino_bytes(weights: float, layers: int) -> float:
    """The memory of a graph with `layers` layers and `weights` bytes of constants, after its first pass."""
    return COPIES * weights + LAYER_WORK * layers


OPENVINO_SCALES = 8  # bytes for each head of a token in an int8 cache: a scale and a zero point, both float32


def _with_pool(plan: LoadPlan, free: int, context: int) -> LoadPlan:
    """The plan with the size of its KV pool: a share of the remaining memory, within the limits."""
    if plan.engine != OPENVINO or not plan.cache:
        return plan
    least = min(context, MIN_KV_TOKENS)
    given = least + int((free - plan.need) / KV_SHARE / plan.cache * 1000)
    if megabytes := MAX_CACHE_MEGABYTES.read():
        given = min(given, megabytes * 10**9 // plan.cache)
    return replace(plan, kv_tokens=max(least, min(given, KV_CONTEXTS * context, MAX_KV_TOKENS)))


def _context(config: Mapping[str, Any]) -> int:
    text = config.get("text_config")
    stated = (text if isinstance(text, Mapping) else config).get("max_position_embeddings")
    return stated if isinstance(stated, int) and 0 < stated < 10**7 else USUAL_CONTEXT


def _precisions(here: Machine, wanted: str, parameters: float, openvino: bool) -> list[Precision]:
    """The number formats to try. Raises `ModelUnavailable` where there is none."""
    rows = [row for row in PRECISIONS[here.device] if openvino is (row.by == OPENVINO)]
    rows = [row for row in rows if wanted in ("auto", row.name)]
    if not rows:
        raise ModelUnavailable(f"QUANTIZATION is {wanted}, which {LABELS[here.device]}s do not have. Set it to auto.")
    missing = {row: row.missing(here) for row in rows}
    possible = [row for row in rows if not missing[row] and (wanted != "auto" or row.chosen(here, parameters))]
    if not possible:
        needs = " (or ".join(missing.values()) + ")" * (len(rows) - 1)
        raise ModelUnavailable(f"QUANTIZATION is {wanted}, which needs {needs}. Set it to auto.")
    return possible


def _as_stored(quantised: Mapping[str, Any], here: Machine) -> Precision:
    """The number format of weights that are stored quantised."""
    method = str(quantised.get("quant_method"))
    row = Precision("none", STORED, 0, packages=QUANTISERS.get(method, ("accelerate",)))
    if missing := row.missing(here):
        raise ModelUnavailable(f"This model is quantised with {method}, which needs {missing}.")
    return row


def _weights(row: Precision, text: Mapping[str, Any], size: int, width: int) -> float:
    """The bytes of the loaded weights, for weights of `size` bytes in the files, stored with `width` bytes each."""
    vocabulary, hidden = text.get("vocab_size"), text.get("hidden_size")
    tied = text.get("tie_word_embeddings") is True
    words = vocabulary * hidden if isinstance(vocabulary, int) and isinstance(hidden, int) else 0
    words = min(words, size // width // (1 if tied else 2))
    layers = size / width - words * (1 if tied else 2)
    outer = {"float32": 4, STORED: width}.get(row.dtype, 2)  # bytes of what is not quantised
    # Our int8 layers have a head of one byte for each weight and a separate embedding. Other libraries do not quantise
    # the head; it may share the memory of the embedding.
    head = 1 if row.by == "parley" else 0 if tied else outer
    return layers * row.weight + words * (outer + head)


def kv_bytes(config: Mapping[str, Any], width: float, for_each_head: int = 0) -> int | None:
    """The bytes of the keys and values of 1,000 tokens, for numbers of `width` bytes plus `for_each_head` bytes.

    None where the config does not tell.
    """
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    grouped = config.get("num_key_value_heads") or heads
    size = config.get("head_dim")
    if not size and isinstance(heads, int) and heads > 0 and isinstance(hidden := config.get("hidden_size"), int):
        size = hidden // heads
    if not (isinstance(layers, int) and isinstance(grouped, int) and isinstance(size, int)):
        return None
    if min(layers, grouped, size) < 1:
        return None
    return int(2 * layers * grouped * (size * width + for_each_head) * 1000)
