"""The whole path of one turn, plain data in and out: what crosses the ZeroGPU process line."""

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

from parley import catalog
from parley.engines.base import Delta, Engine
from parley.engines.pool import ModelPool
from parley.messages import Message
from parley.settings import Settings
from parley.streaming import HEARTBEAT

POOL = ModelPool()
_loaders = ThreadPoolExecutor(max_workers=32, thread_name_prefix="load")
_cancels: dict[str, threading.Event] = {}


def reply(run_id: str, messages: Sequence[Message], settings: Settings, session: str = "") -> Iterator[Delta]:
    """Yields the answer as it is made; loads the model first where that is needed.

    `run_id` is a fresh name for this turn, for `stop`; `session` the visitor's own, a secret.
    Raises `ChatError` for what the reader can mend.
    """
    cancel = _cancels[run_id] = threading.Event()
    try:
        with ExitStack() as leases:
            engine = yield from _lease(leases, settings.model, cancel)
            yield from engine.stream(messages, settings, cancel, session)
    finally:
        del _cancels[run_id]


def stop(run_id: str) -> bool:
    """Ends that turn within one forward pass; its last delta says "stopped". False if no such turn runs here."""
    cancel = _cancels.get(run_id)
    if cancel is not None:
        cancel.set()
    return cancel is not None


def seconds(run_id: str, messages: Sequence[Message], settings: Settings, session: str = "") -> int:
    """How long a GPU is asked for, at most: the time of the answer at 20 tokens a second, plus ten seconds."""
    return min(120, 10 + settings.max_new_tokens // 20)


def _lease(leases: ExitStack, model: str, cancel: threading.Event) -> Generator[Delta, None, Engine]:
    """The model's engine, leased until `leases` is closed; yields what the loading reports meanwhile."""
    status = ""

    def report(sentence: str) -> None:
        nonlocal status
        status = sentence

    loading = _loaders.submit(leases.enter_context, POOL.lease(catalog.find(model), report, cancel))
    try:
        while not wait([loading], timeout=HEARTBEAT).done:
            yield Delta(status=status)
    finally:
        if not loading.done():  # the reader has left
            cancel.set()
            wait([loading])
    return loading.result()
