"""Two engines for one model on an x86 CPU: OpenVINO for what it does once it is ready, the torch model for the rest.

The export and the loading of its result run in the background, while the torch model answers. Needs openvino.
"""

import functools
import importlib.util
import logging
import os
import platform
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from parley.engines import hardware, openvino_export
from parley.engines.base import Delta, Report
from parley.engines.hub import size_text
from parley.engines.loading import Loaded
from parley.engines.local import LocalEngine
from parley.messages import Message
from parley.prefix_cache import PrefixCache
from parley.settings import Settings
from parley.strategies.detection import Detection

if TYPE_CHECKING:  # openvino need not be installed
    from parley.engines.openvino import OpenVinoEngine

LEAST_PARAMETERS = 50_000_000  # a smaller model is fast enough, and an export would take longer than the talk
EXPORT_MEMORY = 3  # times the bytes of the stored weights: what the writer needs at its height, and some air
MOST_DISTANCE = 0.3  # between the logits of both: rounding makes it a few hundredths, a wrong graph about 1
_exporting = threading.Lock()  # two at once would want the memory of two
_log = logging.getLogger(__name__)


@functools.cache
def missing() -> str:
    """What this machine lacks for OpenVINO, as part of a sentence; empty where it lacks nothing."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "this is no x86-64 processor"
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return "this processor has no AVX2"
    return "" if importlib.util.find_spec("openvino") else "openvino is not installed"


def pays(loaded: Loaded) -> bool:
    """Whether this model is worth an export; logs what stands against it."""
    if loaded.fit.device != "cpu" or loaded.fit.quantization != "int8" or parameters(loaded) < LEAST_PARAMETERS:
        return False  # who wants floats gets floats
    if os.environ.get("OPENVINO", "").strip() == "off":
        return False
    if os.environ.get("OMP_PROC_BIND", "false").lower() != "false" and not missing():
        _log.warning(
            "OMP_PROC_BIND would hold OpenVINO to one thread; PyTorch answers as %s. Unset it", loaded.row.name
        )
        return False
    if missing():
        _log.info("PyTorch alone answers as %s: %s", loaded.row.name, missing())
    return not missing()


def parameters(loaded: Loaded) -> int:
    """How many weights a model has, and so about how many bytes it takes once more as an exported one."""
    return sum(tensor.numel() for tensor in (*loaded.model.parameters(), *loaded.model.buffers()))


@dataclass
class _Preparation:
    """What the background thread and the engine share."""

    cancel: threading.Event = field(default_factory=threading.Event)
    status: str = "Preparing the faster engine"
    engine: "OpenVinoEngine | None" = None


class PairedEngine:
    """Asks for each turn OpenVINO where it can, else the torch model. Owns the export that it begins.

    Once nothing refers to it, the export is cancelled and both models are freed.
    """

    def __init__(self, local: LocalEngine, cache: Path = openvino_export.CACHE) -> None:
        self.loaded = local.loaded
        self._local = local
        self._preparation = preparation = _Preparation()
        weakref.finalize(self, preparation.cancel.set)
        source = Path(self.loaded.model.name_or_path)
        arguments = (weakref.ref(self), preparation, source, cache)
        threading.Thread(target=_prepare, args=arguments, daemon=True, name="openvino").start()

    @property
    def preparing(self) -> str:
        """What the background work does, in a few words; empty when it has ended, well or not."""
        return self._preparation.status

    @property
    def prefixes(self) -> tuple[PrefixCache, ...]:
        """What both engines remember of conversations."""
        engine = self._preparation.engine
        return self._local.prefixes + (engine.prefixes if engine else ())

    def stream(
        self,
        messages: Sequence[Message],
        settings: Settings,
        cancel: threading.Event,
        draft: "LocalEngine | PairedEngine | None" = None,
        session: str = "",
    ) -> Iterator[Delta]:
        """See `Engine.stream`; `Ran.config` names the engine that answered."""
        engine = self._preparation.engine if not self._refusal(settings) else None
        if engine:
            yield from engine.stream(messages, settings, cancel, draft, session)
            return
        for delta in self._local.stream(messages, settings, cancel, draft, session):
            told = delta.finish and not self._refusal(settings) and self.preparing
            yield replace(delta, notices=(*delta.notices, told)) if told else delta

    def detect(self, text: str, settings: Settings) -> Detection:
        """See `LocalEngine.detect`."""
        return self._local.detect(text, settings)

    def _refusal(self, settings: Settings) -> str:
        from parley.engines import openvino

        return openvino.refusal(settings)


def _prepare(pair: weakref.ref, preparation: _Preparation, source: Path, cache: Path) -> None:
    """Exports and loads; holds neither the pair nor its models while it exports, so that they can be given up."""

    def report(sentence: str) -> None:
        preparation.status = sentence

    try:
        folder = openvino_export.find(source, cache) or _export(source, report, preparation.cancel, cache)
        if alive := pair():
            from parley.engines.openvino import OpenVinoEngine

            report("Loading the faster engine")
            engine = OpenVinoEngine(alive.loaded, folder)
            if not (distance := engine.distance()) < MOST_DISTANCE:
                raise openvino_export.NotExported(f"its logits are {distance:.0%} from those of the torch model")
            preparation.engine = engine
    except openvino_export.NotExported as error:
        _log.warning("PyTorch alone answers as %s: %s", source, error)
    except Exception:  # whatever a strange model makes of the library: the torch model answers
        _log.exception("PyTorch alone answers as %s", source)
    finally:
        report("")


def _export(source: Path, report: Report, cancel: threading.Event, cache: Path) -> Path:
    with _exporting:
        need = EXPORT_MEMORY * sum(path.stat().st_size for path in source.glob("*.safetensors"))
        if (free := hardware.free_memory()) < need:
            raise openvino_export.NotExported(
                f"{size_text(free)} of memory are free, and {size_text(need)} are wanted"
            )
        return openvino_export.export(source, report, cancel, cache)
