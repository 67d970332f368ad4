"""Runs one turn from its messages to its deltas. All arguments and results can be pickled for a ZeroGPU process."""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from parley.engines.base import Engine, TurnRequest
from parley.errors import BadSetting, ChatError, NotSupported
from parley.events import HEARTBEAT, SHOWN, STATUSES, Choices, ContextUse, Delta, NextToken, RunRecord, TokenScore
from parley.messages import Message
from parley.models import hub, registry
from parley.models.load_plan import LoadEstimate
from parley.models.spec import ModelSpec
from parley.serving import cancellation, gpu_budget
from parley.serving.model_pool import ModelPool
from parley.settings import Settings
from parley.strategies.processors.watermark_detection import Detection

POOL = ModelPool()
STOP_MARGIN_SECONDS = 1.0  # a turn ends this long before the end of its GPU time
_cancels: dict[str, threading.Event] = {}
_forks: list[float] = []  # time.monotonic() at the fork of this process; empty after its first turn

GpuWorker = Callable[[str, Sequence[Message], Settings, str, int], Iterator[Delta | ChatError]]
if hasattr(os, "register_at_fork"):  # Windows does not have it, and ZeroGPU does not run there
    os.register_at_fork(after_in_child=lambda: _forks.append(time.monotonic()))
    os.register_at_fork(
        before=POOL.before_fork,
        after_in_parent=lambda: POOL.after_fork(in_child=False),
        after_in_child=lambda: POOL.after_fork(in_child=True),
    )


def reply(
    run_id: str,
    messages: Sequence[Message],
    settings: Settings,
    session: str = "",
    generated: Sequence[int] = (),
    *,
    given: Sequence[int] = (),
) -> Generator[Delta, None, None]:
    """Yields the answer while it is generated; loads the model first if needed.

    `run_id` is a new, unique name for this turn, for `stop`. `session` is the visitor's secret key. `generated` are
    the tokens of the conversation as they were generated, where the session is a new one, and `given` those with which
    the answer has to begin.
    Raises `ChatError` for errors that the visitor can correct.
    """
    with cancellable(run_id) as cancel, ExitStack() as leases:
        spec, draft_spec = models_of(settings)
        engine = yield from lease(leases, spec, cancel)
        draft = (yield from lease(leases, draft_spec, cancel)) if draft_spec else None
        request = TurnRequest.of(messages, settings, cancel, draft, session, generated=generated, given=given)
        deltas = engine.stream(request)
        if os.environ.get("SPACES_ZERO_GPU") and spec.cpu_on_zerogpu:
            deltas = _noted(deltas, f"{spec.label} answered on the CPU, which spends no GPU time.")
        yield from deltas


def answer_of(
    spec: ModelSpec, run_id: str, messages: Sequence[Message], settings: Settings
) -> Generator[Delta, None, None]:
    """The answer of a model that visitors may not be offered. See `reply`."""
    with cancellable(run_id) as cancel, ExitStack() as leases:
        engine = yield from lease(leases, spec, cancel)
        yield from engine.stream(TurnRequest.of(messages, settings, cancel))


def fetch(run_id: str, spec: ModelSpec) -> Generator[Delta, None, None]:
    """Downloads and loads this model. Yields the status meanwhile. `stop` stops it. Raises `ModelUnavailable`."""
    with cancellable(run_id) as cancel, ExitStack() as leases:
        yield from lease(leases, spec, cancel)


@contextmanager
def cancellable(run_id: str) -> Iterator[threading.Event]:
    """The event that `stop` sets for this run, during a `with` block."""
    cancel = _cancels[run_id] = threading.Event()
    try:
        yield cancel
    finally:
        del _cancels[run_id]


def reply_on_zerogpu(
    worker: GpuWorker, run_id: str, messages: Sequence[Message], settings: Settings, session: str = ""
) -> Iterator[Delta]:
    """Like `reply`, in a ZeroGPU process: `worker` runs `reply_in_worker` there for the requested GPU seconds.

    Raises `ChatError`, and what `worker` raises if there is no GPU or the process fails. Errors that are known before
    are raised before, and cost no GPU time.
    """
    spec, draft_spec = models_of(settings)
    for each in filter(None, (spec, draft_spec)):
        POOL.check(each)
    seconds = gpu_budget.estimate(spec, messages, settings, POOL.placed_bytes)

    def run(seconds: int) -> Iterator[Delta]:
        for item in worker(run_id, messages, settings, session, seconds):
            if isinstance(item, ChatError):
                raise item
            yield replace(item, usage=replace(item.usage, gpu_seconds=seconds)) if item.usage else item

    try:
        yield from run(seconds)
    except Exception as refusal:
        left = gpu_budget.affordable_seconds(refusal)
        if not left:
            raise
        yield from _noted(run(left), STATUSES["seconds_left"].format(count=left))


def reply_in_worker(
    run_id: str, messages: Sequence[Message], settings: Settings, session: str, seconds: int
) -> Iterator[Delta | ChatError]:
    """Like `reply`, in a forked process. The parent process stops it; it ends by itself before `seconds` are over.

    A `ChatError` is yielded and not raised, because an exception would end the process.
    """
    began, late = forked_at(), False
    if cancellation.is_requested(run_id):
        return  # stopped while the visitor waited for a GPU
    yield Delta(status=STATUSES["reading"])  # at once: the visitor no longer waits for a GPU
    try:
        with closing(reply(run_id, messages, settings, session)) as deltas:
            for delta in deltas:
                late = late or time.monotonic() > began + seconds - STOP_MARGIN_SECONDS
                if late or cancellation.is_requested(run_id):
                    stop(run_id)
                yield replace(delta, finish="time" if late and delta.finish == "stopped" else delta.finish)
    except ChatError as refusal:
        yield refusal


def forked_at() -> float:
    """When the GPU time of a turn of ZeroGPU began: the fork of this process, or now if it has had a turn before."""
    return _forks.pop() if _forks else time.monotonic()


def stop(run_id: str) -> bool:
    """Ends this turn within one forward pass; the last delta has the finish reason "stopped".

    Returns False if the turn does not run in this process. A turn in a worker process ends with its next delta.
    """
    cancel = _cancels.get(run_id)
    if cancel is None:
        cancellation.request(run_id)
        return False
    cancel.set()
    return True


def needs_zerogpu(spec: ModelSpec) -> bool:
    """Whether the turns of this model run in a GPU process of ZeroGPU."""
    return bool(os.environ.get("SPACES_ZERO_GPU")) and spec.engine == "local" and not spec.cpu_on_zerogpu


def running() -> list[str]:
    """The run ids of the turns that run in this process."""
    return list(_cancels)


def detect(text: str, settings: Settings) -> Detection:
    """Scores a text for the watermark of these settings; loads their model first if needed.

    Raises `ChatError`. Runs on the CPU in this process.
    """
    spec = registry.find(settings.model)
    if spec.engine != "local":
        raise BadSetting(f"{spec.label} has no tokens to look at. Choose the model that wrote the text.")
    with POOL.lease(spec, lambda _: None, threading.Event()) as engine:
        return engine.detect(text, settings)


def tokenize(
    settings: Settings, text: str, messages: Sequence[Message] = (), *, special: bool = True
) -> tuple[list[int], int]:
    """The tokens of a text or, in the chat template, of messages, and how many tokens the model reads.

    Loads the model first if needed, also on ZeroGPU, where its tokenizer is in this process. Raises `ChatError`.
    """
    with POOL.lease(registry.find(settings.model), lambda _: None, threading.Event()) as engine:
        return engine.tokenize(settings, text, messages, special=special)


def text_scores(
    settings: Settings, text: str | Sequence[int], *, shown: int = SHOWN, cancel: threading.Event | None = None
) -> list[TokenScore]:
    """What the model says of each token of a text, or of these tokens. For `cancel` see `choices`."""
    with _looking((), settings, (), cancel=cancel) as (engine, request):
        return engine.text_scores(request, text, shown)


def token_bytes(model: str, ids: Sequence[int]) -> list[bytes]:
    """The bytes that each of these tokens of a model stands for; loads the model as `tokenize` does."""
    with POOL.lease(registry.find(model), lambda _: None, threading.Event()) as engine:
        return engine.token_bytes(ids)


def scores(
    messages: Sequence[Message],
    settings: Settings,
    answer: str | Sequence[int],
    generated: Sequence[int] = (),
    *,
    shown: int = SHOWN,
    cancel: threading.Event | None = None,
    on_gpu: bool = False,
) -> list[TokenScore]:
    """Why each token of this answer, or text, was chosen; loads the model first if needed. `generated`: see `reply`.

    `shown` candidates are told of each. For `cancel` and `on_gpu` see `choices`. Raises `ChatError`.
    """
    with _looking(messages, settings, generated, cancel=cancel, on_gpu=on_gpu) as (engine, request):
        return engine.scores(request, answer, shown)


def choices(
    messages: Sequence[Message],
    settings: Settings,
    answer: str | Sequence[int],
    generated: Sequence[int] = (),
    *,
    given: Sequence[int] = (),
    prompt: bool = True,
    cancel: threading.Event | None = None,
    on_gpu: bool = False,
) -> Choices:
    """The same with the `prompt`, and how a search came to the answer. Without messages, a text is only scored.

    Ends within one forward pass, with any exception, once `cancel` is set. `on_gpu`: this process has a GPU.
    """
    with _looking(messages, settings, generated, given, cancel=cancel, on_gpu=on_gpu) as (engine, request):
        return engine.choices(request, answer, prompt=prompt)


def next_token(
    messages: Sequence[Message],
    settings: Settings,
    given: Sequence[int] = (),
    generated: Sequence[int] = (),
    *,
    forced: str = "",
    guess: str = "",
    cancel: threading.Event | None = None,
    on_gpu: bool = False,
) -> NextToken:
    """What follows the tokens that are given of an answer, and a text that is forced; how likely a guess is.

    For `cancel` and `on_gpu` see `choices`.
    """
    with _looking(messages, settings, generated, given, cancel=cancel, on_gpu=on_gpu) as (engine, request):
        return engine.next_token(request, forced, guess)


@contextmanager
def _looking(
    messages: Sequence[Message],
    settings: Settings,
    generated: Sequence[int],
    given: Sequence[int] = (),
    *,
    cancel: threading.Event | None = None,
    on_gpu: bool = False,
) -> Iterator[tuple[Engine, TurnRequest]]:
    """The engine, leased, and the request for an answer that is looked at again."""
    spec, draft_spec = models_of(settings)
    if needs_zerogpu(spec) and not on_gpu:
        raise NotSupported(f"{spec.label} runs on a GPU that is lent by the second. Choose one that runs on the CPU.")
    cancel = cancel or threading.Event()
    with ExitStack() as leases:
        engine, draft = (
            leases.enter_context(POOL.lease(each, lambda _: None, cancel)) if each else None
            for each in (spec, draft_spec)
        )
        assert engine
        yield engine, TurnRequest.of(messages, settings, cancel, draft, generated=generated, given=given)


def run_record(messages: Sequence[Message], settings: Settings, seed: int) -> RunRecord | None:
    """What ran for an earlier answer, made anew; None unless its model is loaded here. Raises `ChatError`."""
    engine = POOL.at_hand(registry.find(settings.model))
    return engine.run_record(messages, settings, seed) if engine else None


def answers_at_once(spec: ModelSpec) -> bool:
    """Whether this model answers without a download, without a server and without seconds of ZeroGPU."""
    return spec.engine != "remote" and not needs_zerogpu(spec) and (spec.engine != "local" or bool(hub.on_disk(spec)))


def context_use(messages: Sequence[Message], settings: Settings, session: str = "") -> ContextUse | None:
    """How much of its context window the model needs for these messages; None unless it is loaded in this process.

    Loads nothing. Raises `ChatError` for messages that cannot be answered.
    """
    engine = POOL.at_hand(registry.find(settings.model))
    return engine.context_use(messages, settings, session) if engine else None


def estimate(spec: ModelSpec, traits: registry.Traits | None = None) -> LoadEstimate | None:
    """Whether and how this model would run on this machine; None if it has no weights, or weights of unknown size."""
    return registry.estimate(spec, POOL.available_bytes, traits)


def cpu_model() -> ModelSpec | None:
    """The largest model that answers on the CPU of this ZeroGPU Space; None elsewhere, and where none is loaded."""
    if not os.environ.get("SPACES_ZERO_GPU"):
        return None
    loaded = [spec for spec in registry.models().values() if spec.cpu_on_zerogpu and spec.name in POOL.loaded]
    return max(loaded, key=lambda spec: spec.parameters or 0, default=None)


def _noted(deltas: Iterator[Delta], notice: str) -> Iterator[Delta]:
    """The deltas with a notice on the last one."""
    for delta in deltas:
        yield replace(delta, notices=(*delta.notices, notice)) if delta.finish else delta


def models_of(settings: Settings) -> tuple[ModelSpec, ModelSpec | None]:
    """The model that answers and, if the strategy uses one, its draft model."""
    spec = registry.find(settings.model)
    return spec, registry.draft_of(spec) if settings.effective_strategy.drafts else None


def lease(leases: ExitStack, spec: ModelSpec, cancel: threading.Event) -> Generator[Delta, None, Engine]:
    """The model's engine, leased until `leases` is closed. Yields the status of the loading meanwhile."""
    status = ""

    def report(sentence: str) -> None:
        nonlocal status
        status = sentence

    # The thread ends after the loading. A living thread would keep its OpenMP threads, which compete with those of
    # `generate` for the cores and halve its speed.
    loader = ThreadPoolExecutor(1, thread_name_prefix="load")
    loading = loader.submit(leases.enter_context, POOL.lease(spec, report, cancel))
    loader.shutdown(wait=False)
    try:
        while not wait([loading], timeout=HEARTBEAT).done:
            yield Delta(status=status)
    finally:
        if not loading.done():  # the visitor has left
            cancel.set()
            wait([loading])
    return loading.result()
