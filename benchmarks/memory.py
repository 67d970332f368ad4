"""What a model takes in memory, and how long its loading takes: `python -m benchmarks.memory FOLDER`, on Linux.

Each time in a process of its own, so that nothing else is counted. Memory is what is anonymous: pages that the system
can read again from a file do not count. The process that measures looks at the other one every few milliseconds.
"""

import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from benchmarks.measures import Row, alone, rounded
from benchmarks.models import Model, Models
from parley.models.spec import ModelSpec

LOOK = 0.005  # seconds between two looks
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Footprint:
    """Memory in MB over that of a process with all libraries and no model, and seconds."""

    empty: float  # of the process without a model, by itself
    peak: float  # while it was loaded
    held: float  # after the first passes, without the pool of keys and values
    pool: float  # what of the pool was written
    left: float  # after it was given up
    parameters: float  # millions, each once: the bytes of int8 weights
    seconds: float  # from the start of loading to the first token


def rows(models: Models, shapes: bool) -> Iterator[Row]:
    """Memory, and loading without and with what the probe of batch invariance has found before."""
    for model in models.large(shapes):
        yield from _rows_of(model)


def _rows_of(model: Model) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as home:  # where nothing is known of this processor
        first, again = measure(Path(model.row.id), home), measure(Path(model.row.id), home)
    size = again.parameters
    yield _beside("memory_held", model.name, again.held, size)
    yield _beside("memory_peak", model.name, max(first.peak, again.peak), size)
    yield alone("memory_pool", model.name, "MB", [again.pool])
    yield _beside("memory_left", model.name, again.left, again.held)
    yield alone("memory_empty", model.name, "MB", [again.empty])
    yield alone("load", model.name, "s", [again.seconds])
    yield alone("load_with_probe", model.name, "s", [first.seconds])


def _beside(name: str, model: str, mb: float, other: float) -> Row:
    ratio = rounded(mb / other)
    return Row(name, model, "MB", rounded(mb), rounded(other), ratio, ratio, ratio)


def measure(folder: Path, home: str) -> Footprint:
    """By a process of its own; `home` is its HF_HOME, where it keeps what it has found out about the processor."""
    run = [sys.executable, "-m", "benchmarks.memory", str(folder)]
    environment = os.environ | {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with subprocess.Popen(
        run, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        empty, _ = _at_rest(child)
        peak = _Peak(child.pid)
        loaded = _told(child)
        peak.end()
        held, told = _at_rest(child)
        left, _ = _at_rest(child)
    pool = told["pool"] / 1e6
    return Footprint(
        empty=empty,
        peak=peak.mb - empty,
        held=held - empty - pool,
        pool=pool,
        left=left - empty,
        parameters=told["parameters"] / 1e6,
        seconds=loaded["seconds"],
    )


def _at_rest(child: subprocess.Popen) -> tuple[float, dict[str, float]]:
    """What it takes and says when it waits to be looked at; it goes on afterwards."""
    told, mb = _told(child), _anonymous(child.pid)
    assert child.stdin
    print(file=child.stdin, flush=True)
    return mb, told


def _told(child: subprocess.Popen) -> dict[str, float]:
    assert child.stdout
    if not (line := child.stdout.readline()):
        raise RuntimeError("the process that was to be measured ended; what it said stands above")
    return json.loads(line)


def _anonymous(pid: int) -> float:
    """In MB; 0 for a process that has ended."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:")), 0.0)


class _Peak:
    """The most memory that a process has from now on until `end`, in MB."""

    def __init__(self, pid: int) -> None:
        self.mb = 0.0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK):
            self.mb = max(self.mb, _anonymous(self._pid))

    def end(self) -> None:
        """No more looks."""
        self._over.set()
        self._thread.join()


def main() -> None:
    """The process that is measured. It says what it has found, and waits where its memory is looked at."""
    from benchmarks import measures
    from parley.engines import loader
    from parley.serving import model_pool

    _load_libraries()
    _wait({})
    began = time.perf_counter()
    row = ModelSpec("measured", sys.argv[1], "measured")
    engine = model_pool.local_engine(loader.load(row, lambda _: None, threading.Event()))
    measures.ask(engine, measures.question(), 1)
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    long = measures.question(measures.STORY * 20)
    for asked in ({}, {"strategy": "sampling"}, {"strategy": "beams", "num_beams": 8}):
        measures.ask(engine, long, 16, **asked)
    _wait(
        {
            "pool": engine.memory_bytes - engine.loaded.plan.weights - engine.unwritten_bytes,
            "parameters": _parameters(row.id),
        }
    )
    del engine
    _wait({})


def _load_libraries() -> None:
    """What a process has in memory before it has a model."""
    import openvino
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationMixin

    from parley.engines.openvino import engine

    assert AutoModelForCausalLM and AutoTokenizer and GenerationMixin and engine
    openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")


def _wait(told: dict[str, int]) -> None:
    """Until whoever measures has looked."""
    gc.collect()
    print(json.dumps(told), flush=True)
    sys.stdin.readline()


def _parameters(folder: str) -> int:
    """Those of the files, each once."""
    count = 0
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "numpy") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


if __name__ == "__main__":
    main()
