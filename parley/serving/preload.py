"""Chooses and loads the models of the start. On ZeroGPU these are all models of the registry."""

import os
from collections.abc import Iterable, Mapping

from parley.config import GPU_SIZES, ZEROGPU_SIZE
from parley.errors import ModelUnavailable
from parley.models import hardware, hub, registry
from parley.models.hardware import Gpu, Machine
from parley.models.spec import ModelSpec, size_text
from parley.serving.model_pool import ModelPool

CAPABILITY = (9, 0)  # the CUDA compute capability of ZeroGPU's cards


def gpu_size(environ: Mapping[str, str] = os.environ) -> str | None:
    """The `size` argument of `spaces.GPU` for each turn; None for the default. Raises `BadVariable`."""
    return ZEROGPU_SIZE.read(environ) or None


def load_models(pool: ModelPool, environ: Mapping[str, str] = os.environ) -> None:
    """Loads the models of the start into `pool`, and decides which one is the default for as long as the app runs.

    Raises `SystemExit` as `models_at_startup` does.
    """
    pool.preload(models_at_startup(environ))

    def loads(spec: ModelSpec) -> bool:
        if spec.name not in pool.loaded and not environ.get("SPACES_ZERO_GPU"):
            pool.preload([spec])
        return spec.name in pool.loaded

    if not registry.first_named(environ):
        registry.decide_default(loads, environ)
        pool.preload([registry.default(environ)])  # Budgie, where no real model could be loaded


def models_at_startup(environ: Mapping[str, str] = os.environ) -> list[ModelSpec]:
    """The models to load at startup.

    On ZeroGPU these are all models, because its workers only have the models that are loaded before they are forked.
    Elsewhere it is the first model that the owner names, unless it would have to be downloaded; none where the owner
    names none, because then `load_models` finds out which loads.

    Raises `SystemExit`: with one sentence if the owner's variables name no valid models, and with a table of sizes if
    the models do not fit together into the memory of a turn on ZeroGPU.
    """
    try:
        specs = [spec for spec in registry.models(environ).values() if not spec.problem]
        registry.check_drafts(environ)
        if not environ.get("SPACES_ZERO_GPU"):
            first = specs[:1] if registry.first_named(environ) else []
            return [spec for spec in first if spec.folder or (spec.engine == "local" and hub.on_disk(spec))]
        drafts = [draft for spec in specs if (draft := registry.draft_of(spec, environ))]
        size = gpu_size(environ) or "large"
    except ModelUnavailable as error:
        raise SystemExit(str(error)) from None
    specs = list(dict.fromkeys((*specs, *drafts)))
    needs = dict(_needs(specs, GPU_SIZES[size], environ))
    if sum(needs.values()) > GPU_SIZES[size]:
        raise SystemExit(_too_much(needs, size))
    return specs


def _needs(specs: Iterable[ModelSpec], memory: int, environ: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    """Yields the label and the bytes of each model on the GPU.

    Only for a model of unknown size are its small files read from the Hub.
    """
    zerogpu = Machine("cuda", (Gpu(memory, CAPABILITY),), hardware.machine().packages, zerogpu=True)
    no_traits = registry.Traits({}, thinking=False, context=None)
    for spec in specs:
        if spec.cpu_on_zerogpu:
            continue
        traits = no_traits if spec.parameters else None
        estimate = registry.estimate(spec, lambda _: memory, traits, here=zerogpu, environ=environ)
        if estimate and estimate.plan:  # otherwise loading the model raises the reason
            yield spec.label, estimate.plan.need


def _too_much(needs: Mapping[str, int], size: str) -> str:
    larger = "set ZEROGPU_SIZE=xlarge, which has 96 GB and costs twice the quota, or " if size == "large" else ""
    lines = [
        f"{label[:40]:40} {size_text(need):>10}" for label, need in {**needs, "together": sum(needs.values())}.items()
    ]
    head = f"These models do not fit together into the {GPU_SIZES[size] / 1e9:.0f} GB that a turn on ZeroGPU gets: "
    return "\n".join([f"{head}{larger}name fewer in MODEL_IDS.", "", *lines])
