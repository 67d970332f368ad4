"""Expects how fast a model answers on a CPU, from its size and what this machine reads from its memory in a second."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parley.models.hardware import Machine
from parley.models.load_plan import LoadPlan
from parley.models.spec import ModelSpec

USUAL_LAYERS = 28


@dataclass(frozen=True)
class Kernels:
    """How an engine reads the weights for one token. On one sequence this is nearly all of its time."""

    engine: str
    quantised: bool
    share: float  # of the memory bandwidth
    vnni_rate: float  # bytes that one thread multiplies in a second, with VNNI instructions
    plain_rate: float  # and without
    layer_seconds: float  # for each layer, whatever its size


# Measured with models of 135M and 0.6B parameters on two cores, with and without VNNI, on busy machines: a quiet one
# may be twice as fast.
KERNELS = (
    Kernels("openvino", True, 0.5, 16e9, 4.6e9, 0.0002),
    Kernels("openvino", False, 0.6, 16e9, 8e9, 0.0002),
    Kernels("transformers", True, 0.4, 6e9, 1e9, 0.0007),
    Kernels("transformers", False, 0.4, 8e9, 6e9, 0.0007),
)


def tokens_per_second(plan: LoadPlan, parameters: float, layers: int, here: Machine, bandwidth: float) -> float:
    """The expected speed of decoding with this plan, where each token reads `parameters` weights.

    `bandwidth` is that of the memory of this machine in bytes per second.
    """
    row = next(row for row in KERNELS if (row.engine, row.quantised) == (plan.engine, plan.rounds))
    rate = min(row.share * bandwidth, here.threads * (row.vnni_rate if here.has_vnni else row.plain_rate))
    width = 1 if plan.rounds else 2 if plan.dtype == "float16" else 4
    return 1 / (parameters * width / rate + row.layer_seconds * layers)


def layers(config: Mapping[str, Any]) -> int:
    """The number of layers; a usual one where the config does not tell."""
    stated = config.get("num_hidden_layers")
    return stated if isinstance(stated, int) and stated > 0 else USUAL_LAYERS


def read_parameters(spec: ModelSpec, config: Mapping[str, Any], size: int) -> float:
    """How many parameters are read for each token: all but the embedding, where it is not also the head.

    Files may hold an embedding that is also the head twice, so the catalogue's number counts where there is one.
    """
    parameters = spec.parameters or size / 2
    vocabulary, hidden = config.get("vocab_size"), config.get("hidden_size")
    if config.get("tie_word_embeddings") is not False or not (isinstance(vocabulary, int) and isinstance(hidden, int)):
        return parameters
    return max(parameters - vocabulary * hidden, parameters / 2)
