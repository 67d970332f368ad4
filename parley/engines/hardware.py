"""What this machine has: where models run, and how much memory and disk is free for them."""

import functools
import os
import shutil
from pathlib import Path

import psutil
from huggingface_hub import constants


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
    import torch

    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    return "gpu-48" if memory >= 40 else "gpu-16" if memory >= 14 else "cpu"


@functools.cache
def multiplies_bytes() -> bool:
    """Whether this CPU has instructions for products of whole numbers of one byte (VNNI)."""
    import torch

    return bool(torch.cpu._is_vnni_supported())


def free_memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes free for a model: on the GPU, else in this machine or in the share of it that a container may use."""
    if device() == "cuda" and not os.environ.get("SPACES_ZERO_GPU"):
        import torch

        return torch.cuda.mem_get_info()[0]
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
