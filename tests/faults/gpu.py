"""Faults of a process that has a GPU of ZeroGPU."""

from contextlib import contextmanager

from tests.faults.world import ask
from tests.zerogpu.conftest import BIRD, ZeroGpuSpace


@contextmanager
def worker_killed(world):
    """The process that has the GPU is killed in the middle of an answer; the next turn gets another one."""
    folder = world.new_folder("zerogpu")
    folder.mkdir()
    zero = ZeroGpuSpace(folder)
    world.spaces.append(zero)
    world.closing.append(zero.close)
    yield (
        lambda: ask(zero.url, zero.endless.name, zero.api.kill_workers, max_new_tokens=4000),
        lambda: ask(zero.url, BIRD),
    )
