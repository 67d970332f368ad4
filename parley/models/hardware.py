"""What this machine has: where models run, with which instructions and libraries, and how much memory is free."""

import ctypes
import functools
import gc
import importlib.util
import logging
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from huggingface_hub import constants

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    memory: int  # bytes in all
    capability: tuple[int, int]  # as CUDA counts


@dataclass(frozen=True)
class Machine:
    """What decides how a model is run, as far as it stays the same while the app runs."""

    device: str  # "cuda", "mps" or "cpu"
    cards: tuple[Gpu, ...] = ()
    packages: frozenset[str] = frozenset()  # those that need not be installed, in versions that transformers takes
    has_vnni: bool = False  # the CPU, by instructions of its own (VNNI)
    zerogpu: bool = False
    threads: int = 1  # that compute at once on the CPU
    no_openvino: str = ""  # why OpenVINO does not run here, as the end of a sentence; empty where it does


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
        has_vnni=bool(torch.cpu._is_vnni_supported()),
        zerogpu=bool(os.environ.get("SPACES_ZERO_GPU")),
        threads=cpu_threads(),
        no_openvino=_openvino_obstacle(),
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


def _card(index: int) -> Gpu:
    import torch

    memory = torch.cuda.get_device_properties(index).total_memory
    # AMD's cards count otherwise; all that is taken for granted of them is bfloat16.
    return Gpu(memory, (8, 0) if torch.version.hip else torch.cuda.get_device_capability(index))


THREADS_AT_START = 0  # what torch was given before anything changed it


def cpu_threads(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """How many threads compute at once: torch's figure at the start, which follows OMP_NUM_THREADS, and no more than
    the cores that this process, or the container that it is in, may use.
    """
    global THREADS_AT_START  # noqa: PLW0603  (an answer lowers torch's figure while it is made)
    import torch

    THREADS_AT_START = THREADS_AT_START or torch.get_num_threads()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _first_line(cgroups / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        usable = min(usable, -(-int(quota) // int(period)))
    return max(1, min(THREADS_AT_START, usable))


def _first_line(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _openvino_obstacle() -> str:
    import torch

    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if x86 and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return "this processor has no AVX2"
    if not importlib.util.find_spec("openvino"):
        return "openvino is not installed"
    if os.environ.get("OMP_PROC_BIND", "false").lower() != "false":
        _log.warning("OMP_PROC_BIND holds OpenVINO to one thread, so that PyTorch answers. Unset it")
        return "OMP_PROC_BIND would hold it to one thread"
    return ""


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


def return_memory() -> None:
    """Gives what nothing refers to back to the machine: the GPU's cache, and what the C library keeps for later."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # not in musl
        libc.malloc_trim(0)


def free_disk() -> int:
    """Bytes free where the cache of the Hub is, or will be."""
    cache = Path(constants.HF_HUB_CACHE).absolute()
    return shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
