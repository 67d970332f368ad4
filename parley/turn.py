"""The whole path of one turn, plain data in and out: what crosses the ZeroGPU process line."""

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

from parley import catalog, strategies
from parley.engines.base import HEARTBEAT, Delta, Engine
from parley.engines.hub import ModelRow
from parley.engines.plan import Outlook
from parley.engines.pool import ModelPool
from parley.errors import BadSetting
from parley.messages import Message
from parley.settings import Settings
from parley.strategies.detection import Detection

POOL = ModelPool()
_cancels: dict[str, threading.Event] = {}


def reply(run_id: str, messages: Sequence[Message], settings: Settings, session: str = "") -> Iterator[Delta]:
    """Yields the answer as it is made; loads the model first where that is needed.

    `run_id` is a fresh name for this turn, for `stop`; `session` the visitor's own, a secret.
    Raises `ChatError` for what the reader can mend.
    """
    cancel = _cancels[run_id] = threading.Event()
    try:
        row = catalog.find(settings.model)
        helper = catalog.draft_of(row) if strategies.find(settings.strategy).drafts else None
        with ExitStack() as leases:
            engine = yield from _lease(leases, row, cancel)
            draft = (yield from _lease(leases, helper, cancel)) if helper else None
            yield from engine.stream(messages, settings, cancel, draft, session)
    finally:
        del _cancels[run_id]


def stop(run_id: str) -> bool:
    """Ends that turn within one forward pass; its last delta says "stopped". False if no such turn runs here."""
    cancel = _cancels.get(run_id)
    if cancel is not None:
        cancel.set()
    return cancel is not None


def detect(text: str, settings: Settings) -> Detection:
    """How surely a text bears the watermark of these settings; loads their model first where that is needed.

    Raises `ChatError`. Runs on the CPU, and not in a GPU's process.
    """
    row = catalog.find(settings.model)
    if row.engine != "local":
        raise BadSetting(f"{row.label} has no tokens to look at. Choose the model that wrote the text.")
    with POOL.lease(row, lambda _: None, threading.Event()) as engine:
        return engine.detect(text, settings)


def outlook(row: ModelRow, known: catalog.Traits | None = None) -> Outlook | None:
    """Whether and how this model would be run here; None where it has no weights, or their size is not known."""
    return catalog.outlook(row, POOL.room, known)


def seconds(run_id: str, messages: Sequence[Message], settings: Settings, session: str = "") -> int:
    """How long a GPU is asked for, at most: the time of the answer at 20 tokens a second, plus ten seconds."""
    return min(120, 10 + settings.max_new_tokens // 20)


def _lease(leases: ExitStack, row: ModelRow, cancel: threading.Event) -> Generator[Delta, None, Engine]:
    """The model's engine, leased until `leases` is closed; yields what the loading reports meanwhile."""
    status = ""

    def report(sentence: str) -> None:
        nonlocal status
        status = sentence

    # The thread ends with the loading: one that lives on keeps its team of OpenMP threads, and with two teams that
    # wait for each other's cores `generate` runs at half its speed.
    loader = ThreadPoolExecutor(1, thread_name_prefix="load")
    loading = loader.submit(leases.enter_context, POOL.lease(row, report, cancel))
    loader.shutdown(wait=False)
    try:
        while not wait([loading], timeout=HEARTBEAT).done:
            yield Delta(status=status)
    finally:
        if not loading.done():  # the reader has left
            cancel.set()
            wait([loading])
    return loading.result()
