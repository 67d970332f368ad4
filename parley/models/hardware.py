"""Describes this machine: its devices, CPU instructions, installed libraries and free memory."""

import ctypes
import functools
import gc
import importlib.util
import logging
import os
import platform
import shutil
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import psutil
from huggingface_hub import constants

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    memory: int  # total bytes
    capability: tuple[int, int]  # the compute capability of CUDA


@dataclass(frozen=True)
class Machine:
    """The constant properties of this machine that decide how a model runs."""

    device: str  # "cuda", "mps" or "cpu"
    cards: tuple[Gpu, ...] = ()
    packages: frozenset[str] = frozenset()  # optional packages that are installed in a version for transformers
    has_vnni: bool = False  # whether the CPU has VNNI instructions, which multiply bytes
    zerogpu: bool = False
    threads: int = 1  # for computing on the CPU
    no_openvino: str = ""  # why OpenVINO cannot run here, as the end of a sentence; empty where it can

    @property
    def without_gpu(self) -> "Machine":
        """The same machine for a model that leaves the GPU alone."""
        return replace(self, device="cpu", cards=())


@functools.cache
def machine() -> Machine:
    """The description of this machine."""
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
    """The device of the models: "cuda", "mps" or "cpu". On ZeroGPU "cuda", also outside a turn."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def tier() -> str:
    """The hardware tier of the model catalogue: "cpu", "gpu-16" or "gpu-48". Not for ZeroGPU."""
    if device() != "cuda":
        return "cpu"
    memory = _card(0).memory / 1e9
    return "gpu-48" if memory >= 40 else "gpu-16" if memory >= 14 else "cpu"


def _card(index: int) -> Gpu:
    import torch

    memory = torch.cuda.get_device_properties(index).total_memory
    # AMD GPUs have other version numbers. (8, 0) stands for bfloat16, which they all are taken to have.
    return Gpu(memory, (8, 0) if torch.version.hip else torch.cuda.get_device_capability(index))


THREADS_AT_START = 0  # torch's number of threads before this app changes it


def cpu_threads(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The number of threads to compute with.

    That is torch's number at the start, which follows OMP_NUM_THREADS, but at most the number of cores that this
    process or its container may use.
    """
    global THREADS_AT_START  # noqa: PLW0603  (torch's number is lowered while an answer is generated)
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
    """The free bytes for a model: on the first `cards` GPUs, or in this machine within the limit of its container."""
    if device() == "cuda" and not os.environ.get("SPACES_ZERO_GPU"):
        import torch

        return sum(torch.cuda.mem_get_info(index)[0] for index in range(cards))
    free = psutil.virtual_memory().available
    # Control groups, version 2 and version 1. They count cached files as used, but these are freed on demand.
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (cgroups / limit).is_file() and (maximum := (cgroups / limit).read_text().strip()).isdigit():
            stat = dict(line.split() for line in (cgroups / limit).with_name("memory.stat").read_text().splitlines())
            held = int((cgroups / used).read_text()) - int(stat.get(cached, 0))
            free = min(free, max(0, int(maximum) - held))
    return free


BANDWIDTH_BYTES, BANDWIDTH_ROUNDS = 128_000_000, 8  # more than any cache holds; a fraction of a second


@functools.cache
def memory_bandwidth() -> float:
    """The bytes that the threads of this machine read from its memory in a second, measured now."""
    threads = cpu_threads()
    parts = [numpy.ones(BANDWIDTH_BYTES // threads, numpy.int8) for _ in range(threads)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(BANDWIDTH_ROUNDS):
            began = time.perf_counter()
            list(pool.map(numpy.max, parts))  # it reads every byte, and leaves Python's lock to the other threads
            seconds.append(time.perf_counter() - began)
    return BANDWIDTH_BYTES / statistics.median(seconds)


def return_memory() -> None:
    """Returns unused memory to the machine: the cache of the GPU allocator, and free blocks of the C library."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # musl does not have it
        libc.malloc_trim(0)


def free_disk() -> int:
    """The free bytes on the disk with the cache of the Hub."""
    cache = Path(constants.HF_HUB_CACHE).absolute()
    return shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
