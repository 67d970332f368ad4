"""The models that are loaded before the first visitor comes; on ZeroGPU all of them, or none of them."""

import os
from collections.abc import Iterable, Mapping

from parley.models import hardware, registry
from parley.models.hardware import Gpu, Machine
from parley.models.spec import ModelSpec, size_text

GPU_SIZES = {"large": 48_000_000_000, "xlarge": 96_000_000_000}  # bytes of memory that a turn on ZeroGPU gets
CAPABILITY = (9, 0)  # of its cards, as CUDA counts


def gpu_size(environ: Mapping[str, str] = os.environ) -> str | None:
    """What each turn gets of a ZeroGPU card, by its name in `spaces`; None for the usual. Raises `SystemExit`."""
    size = environ.get("ZEROGPU_SIZE") or None
    if size not in (None, *GPU_SIZES):
        raise SystemExit(f"ZEROGPU_SIZE is {size!r}. Set it to one of {', '.join(GPU_SIZES)}, or leave it out.")
    return size


def models_at_startup(environ: Mapping[str, str] = os.environ) -> list[ModelSpec]:
    """The models to load now: on ZeroGPU all, for its workers only have what is loaded then; elsewhere the default,
    unless it would have to be downloaded.

    Raises `SystemExit`, with a table of sizes, where they do not plan together into what a turn on ZeroGPU gets.
    """
    specs = list(registry.models(environ).values())
    if not environ.get("SPACES_ZERO_GPU"):
        return [spec for spec in specs[:1] if spec.folder]
    drafts = [draft for spec in specs if (draft := registry.draft_of(spec, environ))]
    specs = list(dict.fromkeys((*specs, *drafts)))
    size = gpu_size(environ) or "large"
    needs = dict(_needs(specs, GPU_SIZES[size], environ))
    if sum(needs.values()) > GPU_SIZES[size]:
        raise SystemExit(_too_much(needs, size))
    return specs


def _needs(specs: Iterable[ModelSpec], memory: int, environ: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    """Label and bytes; of a model that is not known here only its small files are read from the Hub."""
    here = Machine("cuda", (Gpu(memory, CAPABILITY),), hardware.machine().packages, zerogpu=True)
    unread = registry.Traits({}, thinking=False, context=None)
    for spec in specs:
        known = unread if spec.parameters else None
        estimate = registry.estimate(spec, lambda _: memory, known, here=here, environ=environ)
        if estimate and estimate.plan:  # else loading it will say why
            yield spec.label, estimate.plan.need


def _too_much(needs: Mapping[str, int], size: str) -> str:
    larger = "set ZEROGPU_SIZE=xlarge, which has 96 GB and costs twice the quota, or " if size == "large" else ""
    lines = [
        f"{label[:40]:40} {size_text(need):>10}" for label, need in {**needs, "together": sum(needs.values())}.items()
    ]
    head = f"These models do not plan together into the {GPU_SIZES[size] / 1e9:.0f} GB that a turn on ZeroGPU gets: "
    return "\n".join([f"{head}{larger}name fewer in MODEL_IDS.", "", *lines])
