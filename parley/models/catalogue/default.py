"""Which model of the catalogue is the default: the best that answers at once."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from parley.models import hardware, hub, load_plan
from parley.models.catalogue import speed
from parley.models.catalogue.rows import REAL
from parley.models.load_plan import LoadPlan
from parley.models.spec import ModelSpec

MIN_TOKENS_PER_SECOND = 8.0  # about as fast as people read
# Stands for the configuration of a model of the catalogue whose files are not here. All have a row in `families`.
UNSEEN: Mapping[str, Any] = {"model_type": "llama", "num_hidden_layers": speed.USUAL_LAYERS}


@dataclass(frozen=True)
class Here:
    """What decides on this machine which models answer well: `machine()`, its free memory and disk, its bandwidth."""

    machine: Callable[[], hardware.Machine] = hardware.machine
    free_memory: Callable[[LoadPlan], int] = lambda plan: hardware.free_memory(plan.cards)
    free_disk: Callable[[], int] = hardware.free_disk
    bandwidth: Callable[[], float] = hardware.memory_bandwidth


def candidates(rows: Sequence[ModelSpec], where: str, here: Here | None = None) -> Iterator[ModelSpec]:
    """The real models of these rows that answer at once on this kind of hardware, best first.

    On ZeroGPU all are loaded at the start, and the first row is the best. On a GPU it is the first whose files are
    whole on the disk and that fits. On a CPU it is the largest of these that is also fast enough.
    """
    real = [spec for spec in rows if spec in REAL]
    if where == "zerogpu":
        yield from real
        return
    here = here or Here()
    for spec in _best_first(real, where):
        source = hub.on_disk(spec)
        if source and source.folder and source.weights_bytes > 0.99 * (spec.bytes or 0):
            config = _config(source.folder)
            if _suits(spec, config, source.weights_bytes, here):
                yield spec


def to_download(rows: Sequence[ModelSpec], where: str, here: Here | None = None) -> ModelSpec | None:
    """The model of these rows that would be the default if its files were on the disk.

    None where nothing can be downloaded, or nothing suits this machine.
    """
    here = here or Here()
    if constants.is_offline_mode():
        return None
    disk = here.free_disk()
    fitting = [spec for spec in rows if spec in REAL and spec.bytes and spec.bytes < disk]
    return next((spec for spec in _best_first(fitting, where) if _suits(spec, UNSEEN, spec.bytes or 0, here)), None)


def _suits(spec: ModelSpec, config: Mapping[str, Any], size: int, here: Here) -> bool:
    """Whether the model fits, and answers fast enough. A GPU is always fast enough for what fits."""
    machine = here.machine()
    estimate = load_plan.choose_load_plan(spec, config, size, here.free_memory, here=machine)
    if not estimate.fits or estimate.plan is None:
        return False
    if estimate.plan.device == "cuda":
        return True
    parameters, layers = speed.read_parameters(spec, config, size), speed.layers(config)
    expected = speed.tokens_per_second(estimate.plan, parameters, layers, machine, here.bandwidth())
    return expected >= MIN_TOKENS_PER_SECOND


def _best_first(rows: list[ModelSpec], where: str) -> list[ModelSpec]:
    """On a CPU the largest first, because its speed decides; on a GPU in the order of the table."""
    return sorted(rows, key=lambda spec: spec.parameters or 0, reverse=True) if where == "cpu" else rows


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8-sig", "replace"))
    except ValueError:  # loading the model will report it
        return {}
    return config if isinstance(config, dict) else {}
