"""What the measurements and tests fetch once: it lies in the user's cache, and is there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

WAIT = 1200  # seconds for whoever makes it now: longer than all that is made here may take


def preload(name: str) -> Path:
    """Where `name` lies in this user's cache, there or not."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parley" / name


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, by `make` where it is not there yet: that gets a path beside it, and leaves a file or a folder there.

    Processes and threads that ask at once wait for the first of them. What `make` raises is passed on, and nothing of
    its work is kept. A wait of more than `WAIT` seconds is a `TimeoutError`.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock"), timeout=WAIT):
        if not target.exists():
            work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
            try:
                made = work / target.name
                make(made)
                made.rename(target)
            finally:
                shutil.rmtree(work)
    return target
