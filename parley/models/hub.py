"""The files of a model in a local folder or on the Hub: finds, downloads and repairs them."""

import errno
import functools
import glob
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.utils import filter_repo_objects
from tqdm import tqdm

from parley.errors import ModelUnavailable
from parley.events import HEARTBEAT, STATUSES, Report
from parley.models.spec import ModelSpec, size_text

SMALL = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")  # configuration and tokenizer
WEIGHTS = ("model*.safetensors",)
NEEDED = ("config.json", "tokenizer.json")  # without these no model of the Hub can be loaded
ALL = (*SMALL, "*.safetensors", "*.gguf")
SAFE_SINGLE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
IGNORED = ("*/*", "model.*.safetensors")  # other formats in subfolders; variants such as model.fp16.safetensors


class LoadingStopped(ModelUnavailable):
    """Raised when the visitor stops the loading. Complete files stay in the cache."""


@dataclass(frozen=True)
class Source:
    """The files of a model, and where they come from."""

    spec: ModelSpec
    files: Mapping[str, int]  # bytes
    commit: str | None = None  # None: nothing can be downloaded
    shards: tuple[str, ...] = ()  # the weight files that an index names; empty without an index
    folder: Path | None = None  # where all of them are already

    @property
    def weights_bytes(self) -> int:
        """The size of all weight files, as they are stored."""
        return sum(self.files[name] for name in _matching(self.files, self.weights))

    @property
    def weights(self) -> tuple[str, ...]:
        """The patterns of the weight files."""
        return self.shards or ((glob.escape(self.spec.gguf),) if self.spec.gguf else WEIGHTS)

    def indexed(self, folder: Path) -> "Source":
        """The same with the weight files that the index in `folder` names, as transformers reads them.

        Raises `ModelUnavailable` where one of them is missing.
        """
        index = folder / SAFE_INDEX
        if SAFE_SINGLE in self.files or not index.is_file():
            return self
        try:
            shards = sorted(set(json.loads(index.read_text("utf-8-sig"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelUnavailable(f"{self.spec.label} has no readable {SAFE_INDEX}. Choose another model.") from error
        if missing := [str(name) for name in shards if name not in self.files]:
            raise ModelUnavailable(
                f"{self.spec.label} is incomplete: {missing[0][:80]} is missing, {len(missing)} of its {len(shards)} "
                "weight files. Copy them again, or choose another model."
            )
        return replace(self, shards=tuple(shards))

    def fetch(self, patterns: Sequence[str], report: Report, cancel: threading.Event, disk: Callable[[], int]) -> Path:
        """Downloads the missing files of these patterns, and returns the folder with all of them.

        Raises `LoadingStopped`. Raises `ModelUnavailable` before the download where the disk is too small.
        """
        if folder := self.spec.folder or self.folder:
            return folder
        if self.spec.gguf:  # it holds everything
            patterns = self.weights
        if self.commit is None:
            return _cached(self.spec, patterns)
        cached = functools.partial(try_to_load_from_cache, self.spec.id, revision=self.commit)
        missing = [name for name in _matching(self.files, patterns) if not isinstance(cached(name), str)]
        need, free = sum(self.files[name] for name in missing), disk()
        if need > free:
            raise ModelUnavailable(
                f"{self.spec.label} is a download of {size_text(need)}, and {size_text(free)} of disk are free. "
                "Choose a smaller model, or make room on the disk."
            )
        return _download(self.spec, patterns, need, report, cancel)

    def purge_damaged(self) -> list[str]:
        """Deletes downloaded files whose checksum differs from that of the Hub, and returns their names."""
        if self.commit is None:
            return []
        try:
            found = HfApi().verify_repo_checksums(self.spec.id, revision=self.commit)
        except (HTTPError, OSError) as error:
            raise to_sentence(self.spec, error) from error
        damaged = [file["path"] for file in found.mismatches]
        for pointer in map(found.verified_path.joinpath, damaged):
            # The blob may be a link too, into a store that all repositories share.
            for path in (pointer.resolve(), pointer.parent / pointer.readlink() if pointer.is_symlink() else pointer):
                path.unlink(missing_ok=True)
            pointer.unlink(missing_ok=True)
        return damaged


def find(spec: ModelSpec, seconds: float = 10) -> Source:
    """The files of this model: in its folder, on the Hub, or in the cache if the Hub does not answer in time.

    Raises `ModelUnavailable`. Downloads nothing.
    """
    if spec.folder is not None:
        return Source(spec, _listed(spec.folder)).indexed(spec.folder)
    try:
        info = HfApi().model_info(spec.id, revision=spec.revision, files_metadata=True, timeout=seconds)
    except (HTTPError, OSError, ValueError) as error:  # ValueError: no JSON, such as the login page of a hotel
        answer = error.response if isinstance(error, HfHubHTTPError) else None
        if answer is not None and answer.status_code < 500:
            raise to_sentence(spec, error) from error
        try:
            return _in_cache(spec)
        except ModelUnavailable as absent:
            raise (absent if answer is None else to_sentence(spec, error)) from error
    files = {s.rfilename: s.size or 0 for s in info.siblings or ()}
    if spec.gguf and spec.gguf not in files:
        raise ModelUnavailable(f"{spec.id} has no file {spec.gguf} on the Hub. Look up the names of its files.")
    return Source(spec, {name: files[name] for name in _matching(files, ALL)}, info.sha)


def on_disk(spec: ModelSpec) -> Source | None:
    """The files of this model if all that loading needs are on this disk, else None. Asks no server."""
    try:
        source = find(spec) if spec.folder else _in_cache(spec)
    except ModelUnavailable:
        return None
    needed = (spec.gguf,) if spec.gguf else NEEDED
    return source if source.weights_bytes and all(name in source.files for name in needed) else None


def _in_cache(spec: ModelSpec) -> Source:
    """The files of a model of the Hub that are in the cache. Raises `ModelUnavailable` where some are missing."""
    folder = _cached(spec, (glob.escape(spec.gguf),) if spec.gguf else (*SMALL, *WEIGHTS))
    return Source(spec, _listed(folder), folder=folder).indexed(folder)


def to_sentence(spec: ModelSpec, error: Exception) -> ModelUnavailable:
    """A sentence for a failed download that says what to do. Quotes nothing of the request, which may have a token."""
    name, cause = spec.label, error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, HTTPError):
        error = cause
    match error:
        case GatedRepoError():
            text = (
                f"{name} is gated: accept its terms at https://huggingface.co/{spec.id} and set the secret HF_TOKEN, "
                "or choose another model."
            )
        case RepositoryNotFoundError():
            text = f"There is no model {spec.id} on the Hub, or it is private. Check the spelling, or set HF_TOKEN."
        case RevisionNotFoundError():
            text = f"{spec.id} has no revision {spec.revision!r}. Look up its branches, tags and commits on the Hub."
        case HfHubHTTPError(response=response) if response.status_code in (401, 403):
            text = f"The Hub does not let this app read {name}. Check that HF_TOKEN is valid and may read it."
        case HfHubHTTPError(response=response) if response.status_code == 429:
            text = f"The Hub asks for a pause before {name} can be downloaded. Try again in a few minutes."
        case HfHubHTTPError(response=response):
            text = f"The Hub fails with error {response.status_code}. Try again in a few minutes, or choose Budgie."
        case LocalEntryNotFoundError():
            text = f"The Hub cannot be reached, and {name} is not whole on this machine. Connect it, or choose Budgie."
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            text = f"The disk became full while {name} was downloaded. Make room on it, or choose a smaller model."
        case _:
            text = f"The download of {name} broke off. Try again: files that are complete are kept."
    return ModelUnavailable(text)


def _snapshot(spec: ModelSpec, patterns: Sequence[str], **how: Any) -> Path:
    patterns, ignored = list(patterns), list(IGNORED)
    return Path(
        snapshot_download(spec.id, revision=spec.revision, allow_patterns=patterns, ignore_patterns=ignored, **how)
    )


def _cached(spec: ModelSpec, patterns: Sequence[str]) -> Path:
    try:
        return _snapshot(spec, patterns, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise to_sentence(spec, error) from error


def _download(spec: ModelSpec, patterns: Sequence[str], need: int, report: Report, cancel: threading.Event) -> Path:
    """Downloads in a separate thread, so that Stop works at once even where the network hangs.

    After Stop the thread ends when it next receives data.
    """
    done: dict[int, float] = {}

    class Bar(tqdm):
        monitor_interval = 0  # no monitor thread

        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs | {"file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            if cancel.is_set():
                raise stopped(spec)
            drawn = super().update(n)
            if self.unit == "B":  # there is one bar for received bytes, one for written bytes, and one for files
                done[id(self)] = self.n
            return drawn

    worker = ThreadPoolExecutor(1, thread_name_prefix="download")
    download = worker.submit(_snapshot, spec, patterns, tqdm_class=Bar)
    worker.shutdown(wait=False)
    while not wait([download], timeout=HEARTBEAT).done:
        if cancel.is_set():
            raise stopped(spec)
        if need:
            share = min(1.0, max(done.values(), default=0) / need)
            report(
                STATUSES["downloading"].format(model=spec.label, share=f"{100 * share:.0f} %", size=size_text(need))
            )
    try:
        return download.result()
    except (HTTPError, OSError, XetDownloadError) as error:
        raise to_sentence(spec, error) from error


def stopped(spec: ModelSpec) -> LoadingStopped:
    """The error for a loading that the visitor stopped."""
    return LoadingStopped(f"Loading {spec.label} was stopped. Send the message again to go on.")


def _matching(names: Mapping[str, object], patterns: Sequence[str]) -> list[str]:
    return list(filter_repo_objects(names, allow_patterns=list(patterns), ignore_patterns=list(IGNORED)))


def _listed(folder: Path) -> dict[str, int]:
    files = {path.name: path.stat().st_size for path in folder.glob("*") if path.is_file()}
    return {name: files[name] for name in _matching(files, ALL)}
