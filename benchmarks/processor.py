"""On what was measured: the processor, what it can do, and the versions of the libraries."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from parley.models import hardware

# What decides how fast small numbers are multiplied, by the names of /proc/cpuinfo.
FEATURES = {"avx2": "avx2", "avx512_vnni": "avx512_vnni", "avx_vnni": "avx_vnni", "amx": "amx_tile"}
PACKAGES = ("openvino", "torch", "transformers")


def describe(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """The machine at hand, as plain data."""
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", "").split()
    return {
        "processor": told.get("model name") or platform.processor() or platform.machine(),
        "threads": hardware.cpu_threads(),
        "features": {name: flag in flags for name, flag in FEATURES.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def sentence(machine: dict[str, Any]) -> str:
    """The same for people."""
    has, lacks = ([name for name, there in machine["features"].items() if there is which] for which in (True, False))
    threads = f"{machine['threads']} {'thread' if machine['threads'] == 1 else 'threads'}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Measured on a processor that calls itself {machine['processor']}, with {threads}, "
        f"{' and '.join(has) or 'none of the instructions that matter'}"
        f"{' but no ' + ', '.join(lacks) if lacks else ''}; {versions}."
    )
