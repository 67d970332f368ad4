"""The whole path of one turn, plain data in and out: what crosses the ZeroGPU process line."""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import replace

from parley import strategies
from parley.engines.base import Engine, TurnRequest
from parley.errors import BadSetting, ChatError
from parley.events import HEARTBEAT, Delta
from parley.messages import Message
from parley.models import registry
from parley.models.load_plan import LoadEstimate
from parley.models.spec import ModelSpec
from parley.serving import cancellation, gpu_budget
from parley.serving.model_pool import ModelPool
from parley.settings import Settings
from parley.strategies.processors.watermark_detection import Detection

POOL = ModelPool()
SPARE = 1.0  # seconds before the end of its GPU time at which a turn ends by itself
_cancels: dict[str, threading.Event] = {}
_forks: list[float] = []  # time.monotonic() of this process's beginning, until its first turn

GpuWorker = Callable[[str, Sequence[Message], Settings, str, int], Iterator[Delta | ChatError]]
if hasattr(os, "register_at_fork"):  # not on Windows, nor is ZeroGPU
    os.register_at_fork(after_in_child=lambda: _forks.append(time.monotonic()))


def reply(
    run_id: str, messages: Sequence[Message], settings: Settings, session: str = ""
) -> Generator[Delta, None, None]:
    """Yields the answer as it is made; loads the model first where that is needed.

    `run_id` is a fresh name for this turn, for `stop`; `session` the visitor's own, a secret.
    Raises `ChatError` for what the reader can mend.
    """
    cancel = _cancels[run_id] = threading.Event()
    try:
        spec, helper = _models(settings)
        with ExitStack() as leases:
            engine = yield from _lease(leases, spec, cancel)
            draft = (yield from _lease(leases, helper, cancel)) if helper else None
            yield from engine.stream(TurnRequest.of(messages, settings, cancel, draft, session))
    finally:
        del _cancels[run_id]


def reply_on_zerogpu(
    worker: GpuWorker, run_id: str, messages: Sequence[Message], settings: Settings, session: str = ""
) -> Iterator[Delta]:
    """`reply`, where `worker` runs `reply_in_worker` in a process that has a GPU for as long as it is asked for.

    Raises `ChatError`, and what `worker` raises where no GPU is to be had or the process fails. What can be known
    before is refused before, and costs no GPU time.
    """
    spec, helper = _models(settings)
    for each in filter(None, (spec, helper)):
        POOL.check(each)
    seconds = gpu_budget.estimate(spec, messages, settings, sum(POOL.loaded.values()))
    for item in worker(run_id, messages, settings, session, seconds):
        if isinstance(item, ChatError):
            raise item
        yield replace(item, usage=replace(item.usage, gpu_seconds=seconds)) if item.usage else item


def reply_in_worker(
    run_id: str, messages: Sequence[Message], settings: Settings, session: str, seconds: int
) -> Iterator[Delta | ChatError]:
    """`reply` in a process that was forked from the one that stops it; ends shortly before `seconds` are over.

    What the reader can mend is yielded, for an exception would cost the process. Plain data in, plain data out.
    """
    began, late = _forks.pop() if _forks else time.monotonic(), False
    if cancellation.is_requested(run_id):
        return  # while the visitor waited
    yield Delta(status="Reading…")  # at once: the visitor no longer waits for a GPU
    try:
        with closing(reply(run_id, messages, settings, session)) as deltas:
            for delta in deltas:
                late = late or time.monotonic() > began + seconds - SPARE
                if late or cancellation.is_requested(run_id):
                    stop(run_id)
                yield replace(delta, finish="time" if late and delta.finish == "stopped" else delta.finish)
    except ChatError as refusal:
        yield refusal


def stop(run_id: str) -> bool:
    """Ends that turn within one forward pass; its last delta says "stopped".

    False if no such turn runs in this process; one in a worker sees it with its next delta.
    """
    cancel = _cancels.get(run_id)
    if cancel is None:
        cancellation.request(run_id)
        return False
    cancel.set()
    return True


def running() -> list[str]:
    """The run ids of the turns that run in this process."""
    return list(_cancels)


def detect(text: str, settings: Settings) -> Detection:
    """How surely a text bears the watermark of these settings; loads their model first where that is needed.

    Raises `ChatError`. Runs on the CPU, and not in a GPU's process.
    """
    spec = registry.find(settings.model)
    if spec.engine != "local":
        raise BadSetting(f"{spec.label} has no tokens to look at. Choose the model that wrote the text.")
    with POOL.lease(spec, lambda _: None, threading.Event()) as engine:
        return engine.detect(text, settings)


def estimate(spec: ModelSpec, known: registry.Traits | None = None) -> LoadEstimate | None:
    """Whether and how this model would be run here; None where it has no weights, or their size is not known."""
    return registry.estimate(spec, POOL.available_bytes, known)


def _models(settings: Settings) -> tuple[ModelSpec, ModelSpec | None]:
    """The model that answers and, where the strategy wants one, the one that guesses ahead."""
    spec = registry.find(settings.model)
    return spec, registry.draft_of(spec) if strategies.find(settings.strategy).drafts else None


def _lease(leases: ExitStack, spec: ModelSpec, cancel: threading.Event) -> Generator[Delta, None, Engine]:
    """The model's engine, leased until `leases` is closed; yields what the loading reports meanwhile."""
    status = ""

    def report(sentence: str) -> None:
        nonlocal status
        status = sentence

    # The thread ends with the loading: one that lives on keeps its team of OpenMP threads, and with two teams that
    # wait for each other's cores `generate` runs at half its speed.
    loader = ThreadPoolExecutor(1, thread_name_prefix="load")
    loading = loader.submit(leases.enter_context, POOL.lease(spec, report, cancel))
    loader.shutdown(wait=False)
    try:
        while not wait([loading], timeout=HEARTBEAT).done:
            yield Delta(status=status)
    finally:
        if not loading.done():  # the reader has left
            cancel.set()
            wait([loading])
    return loading.result()
