"""Lets the shipped client of ZeroGPU run where torch has no CUDA: `python -m tests.zerogpu.cpu_shim` starts app.py so.

Only the calls of the CUDA driver are replaced: a worker moves the packed weights from the disk to its own memory,
where the real one moves them to the GPU. All else in `spaces` is as it was shipped.
"""

import functools
import os
import runpy
from pathlib import Path

import torch

FAULT = "ZERO_GPU_TEST_FAULT"  # a file: while it is there, every forward pass fails as a broken GPU does


def _no_cuda():
    raise RuntimeError("this torch has no CUDA")


def _not_in_bad_fork():
    return False


def install():
    """Has to run before `spaces` is imported."""
    torch.version.cuda = torch.version.cuda or "13.0"
    if not hasattr(torch._C, "_cuda_init"):
        torch._C._cuda_init = _no_cuda
    torch.cuda._is_in_bad_fork = _not_in_bad_fork  # a lambda in CPU wheels, which cannot be sent to a process

    import spaces.zero.torch
    from spaces.zero import config
    from spaces.zero.torch import patching

    def init(nvidia_uuid):
        os.environ["CUDA_VISIBLE_DEVICES"] = nvidia_uuid

    def move(callback=None):
        for pack in patching.tensor_packs:
            with Path(pack.path()).open("rb") as file:
                for tensor, size, aligned in [each for batch in pack.batches for each in batch] + pack.big_tensors:
                    here = _tensor(bytearray(file.read(aligned)[:size]), tensor)
                    for fake in pack.fakes[tensor]:
                        fake.data = here
                    if callback:
                        callback(size)

    spaces.zero.torch.init, spaces.zero.torch.move = init, move
    config._read_gpu_information = "Model: \t NVIDIA RTX PRO 6000 Blackwell Server Edition".strip


def _tensor(data, like):
    if not data:
        return torch.empty(like.shape, dtype=like.dtype)
    source = torch.frombuffer(data, dtype=torch.uint8).untyped_storage()
    return torch.tensor([], dtype=like.dtype).set_(source, 0, like.shape, like.stride())


def _break_on_demand(path):
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    @functools.wraps(forward)  # `generate` and the prefix cache look at its parameters
    def failing(self, *args, **kwargs):
        if path.exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return forward(self, *args, **kwargs)

    LlamaForCausalLM.forward = failing


if __name__ == "__main__":
    install()
    _break_on_demand(Path(os.environ[FAULT]))
    runpy.run_path("app.py", run_name="__main__")
