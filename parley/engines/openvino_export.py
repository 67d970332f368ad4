"""The exported models on this disk: each written once, whole or not at all, under a key of all that decides it."""

import hashlib
import importlib.metadata
import json
import logging
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
from huggingface_hub import constants

from parley.engines.base import Report
from parley.engines.hub import size_text

CACHE = Path(constants.HF_HOME) / "parley" / "openvino"
WRITER = Path(__file__).with_name("openvino_writer.py")
PACKAGES = ("openvino", "transformers", "torch")
PRECISION = "int8"
TICK = 0.25  # seconds between two looks at the writer
LEAST_SPARE = 500_000_000  # bytes of disk that are left to others
_log = logging.getLogger(__name__)


class NotExported(Exception):
    """Why there is no exported model; for the log, not for the reader, whom the torch model answers."""


class Stopped(NotExported):
    """It was cancelled: another attempt may succeed."""


def key(source: Path) -> str:
    """A name for what a folder's model becomes: of its files, the precision, and the versions that take part."""
    digests = {path.name: _digest(path) for path in sorted((source / "config.json", *source.glob("*.safetensors")))}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    known = [PRECISION, digests, versions, _digest(WRITER)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]


def find(source: Path, cache: Path = CACHE) -> Path | None:
    """The folder of the exported model, if there is one.

    Raises `NotExported` where an attempt has shown that this model cannot be exported.
    """
    folder = cache / key(source)
    refusal = folder.with_suffix(".refused")
    if refusal.is_file():
        raise NotExported(refusal.read_text("utf-8"))
    return folder if folder.is_dir() else None


def export(
    source: Path,
    report: Report,
    cancel: threading.Event,
    cache: Path = CACHE,
    disk: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Path:
    """The folder of the exported model, written first where there is none; `source` is a folder of transformers.

    Takes minutes and about twice the bytes of the weights in memory, in a process of its own. Setting `cancel` ends
    that within a moment. Raises `NotExported`; only what the exporter itself cannot do is remembered.
    """
    if found := find(source, cache):
        return found
    cache.mkdir(parents=True, exist_ok=True)
    _clear(cache)
    need = sum(path.stat().st_size for path in source.glob("*.safetensors")) + LEAST_SPARE
    if disk(cache) < need:
        raise NotExported(f"the disk has {size_text(disk(cache))} free, and {size_text(need)} are wanted")
    folder = cache / key(source)
    partial = cache / f"partial-{psutil.Process().pid}-{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        _write(source, partial, folder.with_suffix(".refused"), report, cancel)
        return _placed(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _digest(path: Path) -> str:
    """Of its content; in the cache of the Hub large files are links to a file that is named so already."""
    target = path.resolve()
    if target.parent.name == "blobs":
        return target.name
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clear(cache: Path) -> None:
    """Takes away what servers that are no more have left half finished."""
    for path in cache.glob("partial-*"):
        if not psutil.pid_exists(int(path.name.split("-")[1])):
            shutil.rmtree(path, ignore_errors=True)


def _write(source: Path, partial: Path, refusal: Path, report: Report, cancel: threading.Event) -> None:
    with (partial / "log").open("w+b") as log:
        writer = subprocess.Popen(
            [sys.executable, "-m", "parley.engines.openvino_writer", source.resolve(), partial],
            cwd=WRITER.parents[2],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        try:
            _watch(writer, partial / "progress", report, cancel)
        finally:
            writer.kill()
            writer.wait()
            writer.stdin.close()
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip()
    if writer.returncode == 0:
        return
    reason = said.splitlines()[-1][:300] if said else "no reason given"
    _log.warning("The export of %s ended with %d: %s", source, writer.returncode, said[-3000:])
    # A signal, such as that for too much memory, may not come the next time; an exception will.
    if writer.returncode == 1 and not reason.startswith(("MemoryError", "OSError")):
        refusal.write_text(reason, "utf-8")
    raise NotExported(reason)


def _watch(writer: subprocess.Popen, progress: Path, report: Report, cancel: threading.Event) -> None:
    """Returns when the writer has ended; raises `Stopped` when `cancel` is set before."""
    told = ""
    while writer.poll() is None:
        if cancel.wait(TICK):
            raise Stopped("the export was cancelled")
        if progress.is_file() and (now := progress.read_text("utf-8")) and now != told:
            told = now
            report(f"Preparing the faster engine: {told}")


def _placed(partial: Path, folder: Path) -> Path:
    (partial / "progress").unlink()
    (partial / "log").unlink()
    try:
        return partial.rename(folder)
    except OSError:
        if folder.is_dir():  # another server was first
            return folder
        raise
