"""The models that are loaded before the first visitor comes; on ZeroGPU all of them, or none of them."""

import os
from collections.abc import Iterable, Mapping

from parley.models import hardware, registry
from parley.models.hardware import Card, Machine
from parley.models.hub import ModelRow, size_text

SLICES = {"large": 48_000_000_000, "xlarge": 96_000_000_000}  # bytes of memory that a turn on ZeroGPU gets
CAPABILITY = (9, 0)  # of its cards, as CUDA counts


def slice_size(environ: Mapping[str, str] = os.environ) -> str | None:
    """What each turn gets of a ZeroGPU card, by its name in `spaces`; None for the usual. Raises `SystemExit`."""
    size = environ.get("ZEROGPU_SIZE") or None
    if size not in (None, *SLICES):
        raise SystemExit(f"ZEROGPU_SIZE is {size!r}. Set it to one of {', '.join(SLICES)}, or leave it out.")
    return size


def at_start(environ: Mapping[str, str] = os.environ) -> list[ModelRow]:
    """The models to load now: on ZeroGPU all, for its workers only have what is loaded then; elsewhere the default,
    unless it would have to be downloaded.

    Raises `SystemExit`, with a table of sizes, where they do not fit together into what a turn on ZeroGPU gets.
    """
    rows = list(registry.models(environ).values())
    if not environ.get("SPACES_ZERO_GPU"):
        return [row for row in rows[:1] if row.folder]
    drafts = [draft for row in rows if (draft := registry.draft_of(row, environ))]
    rows = list(dict.fromkeys((*rows, *drafts)))
    size = slice_size(environ) or "large"
    needs = dict(_needs(rows, SLICES[size], environ))
    if sum(needs.values()) > SLICES[size]:
        raise SystemExit(_too_much(needs, size))
    return rows


def _needs(rows: Iterable[ModelRow], memory: int, environ: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    """Label and bytes; of a model that is not known here only its small files are read from the Hub."""
    here = Machine("cuda", (Card(memory, CAPABILITY),), hardware.machine().packages, zerogpu=True)
    unread = registry.Traits({}, thinking=False, context=None)
    for row in rows:
        known = unread if row.parameters else None
        outlook = registry.outlook(row, lambda _: memory, known, here=here, environ=environ)
        if outlook and outlook.fit:  # else loading it will say why
            yield row.label, outlook.fit.need


def _too_much(needs: Mapping[str, int], size: str) -> str:
    larger = "set ZEROGPU_SIZE=xlarge, which has 96 GB and costs twice the quota, or " if size == "large" else ""
    lines = [
        f"{label[:40]:40} {size_text(need):>10}" for label, need in {**needs, "together": sum(needs.values())}.items()
    ]
    head = f"These models do not fit together into the {SLICES[size] / 1e9:.0f} GB that a turn on ZeroGPU gets: "
    return "\n".join([f"{head}{larger}name fewer in MODEL_IDS.", "", *lines])
