"""Feed-forward layers compiled ahead of time, for ZeroGPU, where torch.compile is of no use; only with AOTI=1.

All layers of a model share one program, which each turn loads anew. Whether it pays has not been measured.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from parley.engines.hub import ModelRow
from parley.engines.loading import Loaded
from parley.engines.pool import ModelPool

SECONDS = 300  # of GPU time for one model
MOST_ROWS = 64
_log = logging.getLogger(__name__)


class Spaces(Protocol):
    """What is used of the module `spaces`, which only app.py may import."""

    GPU: Callable[..., Any]
    aoti_capture: Callable[..., Any]
    aoti_compile_and_save: Callable[..., Any]
    aoti_load_from_package_dir: Callable[..., Any]


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the owner has switched it on."""
    return environ.get("AOTI") == "1"


def compile_models(spaces: Spaces, pool: ModelPool, rows: Iterable[ModelRow]) -> list[str]:
    """Compiles what it can of these models, which the pool has, in processes with a GPU; returns the names of those.

    Has to run before the weights are packed for the workers. A model that fails answers as it is.
    """
    known = {row.name: row for row in rows if row.engine == "local"}

    @spaces.GPU(duration=SECONDS)
    def compile_one(name: str, folder: str) -> None:
        with pool.lease(known[name], _log.info, threading.Event()) as engine:
            spaces.aoti_compile_and_save(folder, export(spaces, engine.loaded))

    done = []
    for name, row in known.items():
        folder = tempfile.mkdtemp(prefix="aoti-")
        try:
            with pool.lease(row, _log.info, threading.Event()) as engine:
                compile_one(name, folder)
                spaces.aoti_load_from_package_dir(feed_forward(engine.loaded), Path(folder))
        except Exception:  # whatever a strange model makes of the compiler
            _log.exception("%s is not compiled", name)
        else:
            done.append(name)
    return done


def feed_forward(loaded: Loaded) -> torch.nn.ModuleList:
    """The feed-forward part of every decoder layer; raises `ValueError` where they are not all alike."""
    layers = [m for m in loaded.model.modules() if type(m).__name__ in (loaded.model._no_split_modules or ())]
    found = [getattr(layer, "mlp", None) for layer in layers]
    if not found or len({(type(m), str(m)) for m in found}) != 1 or found[0] is None:
        raise ValueError("the feed-forward layers are not all alike")
    return torch.nn.ModuleList(found)


def export(spaces: Spaces, loaded: Loaded) -> torch.export.ExportedProgram:
    """One of those layers as a graph, for any number of rows and tokens."""
    layer = feed_forward(loaded)[0]
    with torch.no_grad():
        with spaces.aoti_capture(layer) as call:
            loaded.model(torch.ones((2, 8), dtype=torch.long, device=loaded.model.device))
        sizes = {0: torch.export.Dim("rows", min=1, max=MOST_ROWS), 1: torch.export.Dim("tokens", min=1)}
        return torch.export.export(layer, call.args, call.kwargs, dynamic_shapes=(sizes,))
