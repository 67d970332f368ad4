"""What memory a model takes while it answers: `python -m benchmarks.footprint FOLDER floats|engine`, on Linux.

A process of its own, so that nothing else is counted. Pages that the system can read again from a file do not count.
"""

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks import shapes
from parley.engines import paired
from parley.engines.hub import ModelRow
from parley.engines.loading import load
from parley.engines.local import LocalEngine
from parley.engines.paired import PairedEngine
from parley.messages import Message
from parley.settings import Settings


def measure(folder: Path, way: str) -> float:
    """In MB, by a process of its own."""
    run = [sys.executable, "-m", "benchmarks.footprint", str(folder), way]
    environment = os.environ | {"QUANTIZATION": "none" if way == "floats" else "auto"}
    return float(subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout)


def _held() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Anonymous:"))


def main() -> None:
    """The command line."""
    shapes.budgie()  # imports all that is imported
    before = _held()
    row = ModelRow("shape", sys.argv[1], "shape")
    loaded = shapes.apart(load, row, lambda _: None, threading.Event())
    engine = LocalEngine(loaded)
    if sys.argv[2] == "engine" and paired.pays(loaded):
        engine = PairedEngine(engine)
        while engine.preparing:
            time.sleep(1)
    settings = Settings.check({"strategy": "greedy", "max_new_tokens": 32})
    list(engine.stream([Message("user", "Hello")], settings, threading.Event()))
    print(_held() - before)


if __name__ == "__main__":
    main()
