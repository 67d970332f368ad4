"""Faults of the machine: its memory, its disk, its clock, its processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import openvino
import pytest

from parley.serving import turn
from tests.conftest import Space, until
from tests.faults.world import NONCE, ask, in_thread

MOUNTED = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size={} tiny "$HF_HOME" && exec "$@"', "sh"]
LONG = f"Once upon a time there was a bird named {NONCE} that could count. " * 12


def out_of_memory():
    """Raises what Python makes of an allocation that fails."""
    raise MemoryError


@contextmanager
def no_room(world):
    """Next to nothing is free, and then all is again."""
    with world.folder() as (folder, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn.POOL, "_free", lambda cards: 5000)
        for spec in [spec for spec in turn.POOL._entries if spec.name != "budgie"]:
            patch.delitem(turn.POOL._entries, spec)  # what could be unloaded counts as free
        patch.setattr(turn.POOL, "available_bytes", lambda plan: 5000)
        patch.setattr(turn.POOL, "_make_room", lambda plan: 5000)
        yield lambda: ask(world.inside.url, folder.name), lambda: patch.undo() or again(world, folder)


def again(world, folder):
    """The same question once more."""
    with world.variables(MODEL_IDS=f"budgie,parrot,{folder}"):
        return ask(world.inside.url, folder.name)


@contextmanager
def no_memory_at_load(world):
    """The library fails where it makes the weights of the graph."""
    with world.folder() as (folder, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino.Core, "compile_model", lambda *_, **__: out_of_memory())
        yield lambda: ask(world.inside.url, folder.name), lambda: patch.undo() or again(world, folder)


def with_small_disk(size):
    """A kind of `Space` whose cache is a disk of so many bytes, in a name space of its own."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("only root, or who may make user namespaces, can make a small disk")
    mounted = [each.format(size) for each in MOUNTED]
    program = f"import os, sys; os.makedirs(os.environ['HF_HOME']); os.execvp('unshare', {mounted!r} + sys.argv[1:])"
    return type("SmallDisk", (Space,), {"command": ("-c", program, sys.executable, "app.py")})


@contextmanager
def small_disk(world):
    """A disk that is too small for the weights."""
    space, id = world.start(with_small_disk(200_000)), f"org/{world.new_folder('m').name}"
    world.hub.add(id, world.tiny)
    yield lambda: ask(space.url, id), lambda: ask(space.url)


@contextmanager
def disk_that_fills(world):
    """A disk on which something else writes while the weights come."""
    space, id = world.start(with_small_disk(3_000_000)), f"org/{world.new_folder('m').name}"
    repo = world.hub.add(id, world.tiny, hold_after=100_000)
    home = next(
        each for each in Path(f"/proc/{space.process.pid}/environ").read_text().split("\0") if "HF_HOME=" in each
    )
    inside = Path(f"/proc/{space.process.pid}/root{home.partition('=')[2]}")

    def filled():
        result = in_thread(lambda: ask(space.url, id))
        until(repo.downloads)
        filler = inside / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(10_000))
        repo.released.set()
        return result()

    def room():
        (inside / "filler").unlink()
        repo.hold_after = None
        return ask(space.url, id)

    yield filled, room


def clock(seconds):
    """The clock of the wall jumps in the middle of an answer, and stays there for the next one."""

    @contextmanager
    def happens(world):
        right = time.time
        with pytest.MonkeyPatch.context() as patch:
            jump = lambda: patch.setattr(time, "time", lambda: right() + seconds)  # noqa: E731
            yield lambda: ask(world.inside.url, "endless", jump), lambda: ask(world.inside.url)

    return happens


@contextmanager
def sleep(world):
    """The process is stopped in the middle of an answer, and goes on."""

    def nap():
        pid = world.space.process.pid
        os.kill(pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        os.kill(pid, signal.SIGCONT)

    yield lambda: ask(world.space.url, "parrot", nap, message=LONG), lambda: ask(world.space.url)


@contextmanager
def ended(world):
    """The process is asked to end in the middle of an answer; then it is started again at the same address."""
    space = world.start(MAX_STOP_SECONDS="1")
    end = lambda: space.process.send_signal(signal.SIGTERM)  # noqa: E731

    def restarted():
        space.process.wait()
        return ask(world.start(port=space.port).url)

    yield lambda: ask(space.url, "parrot", end, message=LONG * 4, max_new_tokens=4096), restarted
