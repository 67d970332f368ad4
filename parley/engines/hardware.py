"""What this machine has: where models run, with which instructions and libraries, and how much memory is free."""

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import psutil
from huggingface_hub import constants


@dataclass(frozen=True)
class Card:
    """One GPU."""

    memory: int  # bytes in all
    capability: tuple[int, int]  # as CUDA counts


@dataclass(frozen=True)
class Machine:
    """What decides how a model is run, as far as it stays the same while the app runs."""

    device: str  # "cuda", "mps" or "cpu"
    cards: tuple[Card, ...] = ()
    packages: frozenset[str] = frozenset()  # those that need not be installed, in versions that transformers takes
    multiplies_bytes: bool = False  # the CPU, by instructions of its own (VNNI)
    unpacks_nibbles: bool = False  # the CPU, as fast as torch can
    compiles: bool = False  # `torch.compile` would find what it calls
    zerogpu: bool = False


@functools.cache
def machine() -> Machine:
    """This one."""
    import torch
    from transformers.utils import import_utils as known

    packages = {
        "accelerate": known.is_accelerate_available,
        "bitsandbytes": known.is_bitsandbytes_available,
        "torchao": known.is_torchao_available,
        "kernels": known.is_kernels_available,
        "gptqmodel": known.is_gptqmodel_available,
        "optimum": known.is_optimum_available,
        "compressed-tensors": known.is_compressed_tensors_available,
        "flash_attn": known.is_flash_attn_2_available,
        "flash_attn_interface": known.is_flash_attn_3_available,
    }
    here = device()
    return Machine(
        here,
        cards=tuple(map(_card, range(torch.cuda.device_count()))) if here == "cuda" else (),
        packages=frozenset(name for name, installed in packages.items() if installed()),
        multiplies_bytes=bool(torch.cpu._is_vnni_supported()),
        # Elsewhere torch has these products too, but computes them number by number.
        unpacks_nibbles=torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"),
        compiles=_compiles(here),
        zerogpu=bool(os.environ.get("SPACES_ZERO_GPU")),
    )


@functools.cache
def device() -> str:
    """Where models run: "cuda", "mps" or "cpu". On ZeroGPU "cuda", also outside a turn."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def tier() -> str:
    """The kind of hardware, as the catalogue knows it: "cpu", "gpu-16" or "gpu-48". Not for ZeroGPU."""
    if device() != "cuda":
        return "cpu"
    memory = _card(0).memory / 1e9
    return "gpu-48" if memory >= 40 else "gpu-16" if memory >= 14 else "cpu"


def _card(index: int) -> Card:
    import torch

    memory = torch.cuda.get_device_properties(index).total_memory
    # AMD's cards count otherwise; all that is taken for granted of them is bfloat16.
    return Card(memory, (8, 0) if torch.version.hip else torch.cuda.get_device_capability(index))


def _compiles(device: str) -> bool:
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    triton = device != "cuda" or importlib.util.find_spec("triton")
    return bool(shutil.which(os.environ.get("CXX") or usual) and headers.is_file() and triton)


def free_memory(cards: int = 1, cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes free for a model: on the first so many GPUs, else in this machine or in the share of it that a container
    may use.
    """
    if device() == "cuda" and not os.environ.get("SPACES_ZERO_GPU"):
        import torch

        return sum(torch.cuda.mem_get_info(index)[0] for index in range(cards))
    free = psutil.virtual_memory().available
    # Control groups, version 2 and version 1. Cached files count as used there, but are given up on demand.
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (cgroups / limit).is_file() and (most := (cgroups / limit).read_text().strip()).isdigit():
            stat = dict(line.split() for line in (cgroups / limit).with_name("memory.stat").read_text().splitlines())
            held = int((cgroups / used).read_text()) - int(stat.get(cached, 0))
            free = min(free, max(0, int(most) - held))
    return free


def free_disk() -> int:
    """Bytes free where the cache of the Hub is, or will be."""
    cache = Path(constants.HF_HUB_CACHE).absolute()
    return shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
