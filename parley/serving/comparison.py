"""A comparison: one conversation answered in several columns, each with settings of its own.

All columns run at the same time, as turns do. Models that have no room together run one after the other. Each prompt
is read once for each model (`engines.shared_prompts`), and each column is what it would be alone. When all have ended
they are scored. All arguments and results can be pickled for a ZeroGPU process.
"""

import functools
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Protocol

from parley.errors import BadSetting, ChatError
from parley.events import STATUSES, ColumnEvent
from parley.models import registry
from parley.serving import cancellation, gpu_budget, turn
from parley.serving.column_batch import MAX_COLUMNS, Column, ColumnBatch, Explain, Work

MIN_COLUMNS = 2


class GpuWorker(Protocol):
    """Runs `compare_in_worker` in a ZeroGPU process."""

    def __call__(
        self, run_id: str, columns: Sequence[Column], session: str, generated: Sequence[int], seconds: int
    ) -> Iterator[ColumnEvent | ChatError]:
        """See `compare_in_worker`."""
        ...


def check(columns: Sequence[object]) -> None:
    """Raises `BadSetting` where there are too few columns or too many."""
    if not MIN_COLUMNS <= len(columns) <= MAX_COLUMNS:
        raise BadSetting(
            f"A comparison has {MIN_COLUMNS} to {MAX_COLUMNS} columns; this one has {len(columns)}. "
            f"{'Add' if len(columns) < MIN_COLUMNS else 'Remove'} some."
        )


def gpu_seconds(columns: Sequence[Column]) -> int:
    """The GPU seconds that all columns together request from ZeroGPU; 0 where none needs a GPU.

    Raises `ChatError` for what is known before.
    """
    asking = [each for each in columns if each.needs_gpu]
    for spec in {spec for each in asking for spec in each.models}:
        turn.POOL.check(spec)
    turns = [(each.spec, each.messages, each.settings) for each in asking]
    return gpu_budget.estimate_together(turns, turn.POOL.placed_bytes) if turns else 0


def stop(run_id: str, columns: Sequence[Column], number: int | None = None) -> bool:
    """Ends this column within one forward pass; without a number all of them, or the scoring if it has begun.

    Returns False if one of them does not run in this process.
    """
    if number is None and _scoring_id(run_id) in turn.running():
        turn.stop(_scoring_id(run_id))
    numbers = [each.number for each in columns] if number is None else [number]
    here = [turn.stop(_column_id(run_id, each)) for each in numbers]
    return all(here)


def compare(
    run_id: str,
    columns: Sequence[Column],
    session: str = "",
    generated: Sequence[int] = (),
    *,
    explain: Explain | None = None,
    worker: GpuWorker | None = None,
) -> Generator[ColumnEvent, None, None]:
    """Yields what comes in the columns while they are answered, and their figures.

    `run_id`, `session` and `generated` are those of `turn.reply`. `worker` runs `compare_in_worker` in a ZeroGPU
    process for the columns that need one. What goes wrong in one column ends this column alone; without `explain` an
    error that is a bug is raised.
    """
    work = Work(session, generated, explain)
    on_gpu = [each for each in columns if worker and each.needs_gpu]
    here = [each for each in columns if each not in on_gpu]
    with ExitStack() as stack:
        work.cancels = {
            each.number: stack.enter_context(turn.cancellable(_column_id(run_id, each.number))) for each in here
        }
        try:
            if worker and on_gpu:
                work.start(lambda: _on_gpu(worker, run_id, work, on_gpu))
            yield from _answered(run_id, work, here)
            yield from work.drained()
        finally:
            for cancel in work.cancels.values():
                cancel.set()


def compare_in_worker(
    run_id: str, columns: Sequence[Column], session: str, generated: Sequence[int], seconds: int
) -> Iterator[ColumnEvent | ChatError]:
    """Like `compare`, in a forked process. The parent process stops it; it ends before `seconds` are over."""
    began, late = turn.forked_at(), False
    ids = [_column_id(run_id, each.number) for each in columns]
    if all(map(cancellation.is_requested, ids)):
        return  # stopped while the visitor waited for a GPU
    yield ColumnEvent()  # at once: the visitor no longer waits for a GPU
    with closing(compare(run_id, columns, session, generated)) as events:
        for event in events:
            late = late or time.monotonic() > began + seconds - turn.STOP_MARGIN_SECONDS
            for each in ids:
                if late or cancellation.is_requested(each):
                    turn.stop(each)
            if late:
                turn.stop(_scoring_id(run_id))
            if late and event.delta and event.delta.finish == "stopped":
                yield replace(event, delta=replace(event.delta, finish="time"))
            else:
                yield event


def _column_id(run_id: str, number: int) -> str:
    return f"{run_id}.{number}"


def _scoring_id(run_id: str) -> str:
    return f"{run_id}.scores"


def _answered(run_id: str, work: Work, columns: Sequence[Column]) -> Iterator[ColumnEvent]:
    """Answers these columns, those whose models have room together at the same time, and measures them."""
    waiting = list(columns)
    while waiting:
        with ExitStack() as leases:
            batch = ColumnBatch(work)
            waiting = yield from batch.lease(leases, waiting)
            for each in batch.columns:
                work.start(functools.partial(batch.answer, each))
            yield from work.drained()
            many = not waiting and not registry.have_one_tokenizer([each.spec for each in columns])
            with turn.cancellable(_scoring_id(run_id)) as cancel:
                work.start(functools.partial(batch.score, columns if many else (), cancel))
                yield from work.drained()


def _on_gpu(worker: GpuWorker, run_id: str, work: Work, columns: Sequence[Column]) -> None:
    """Runs these columns in one call of ZeroGPU. Fewer seconds are asked for where the visitor has no more."""

    def ask(seconds: int) -> None:
        work.made.put(ColumnEvent(gpu_seconds=seconds))
        for item in worker(run_id, columns, work.session, work.generated, seconds):
            if isinstance(item, ChatError):
                raise item
            work.made.put(item)

    try:
        seconds = gpu_seconds(columns)
        try:
            ask(seconds)
        except Exception as refusal:
            left = gpu_budget.affordable_seconds(refusal)
            if not left:
                raise
            work.made.put(ColumnEvent(notice=STATUSES["seconds_left"].format(count=left)))
            ask(left)
    except Exception as error:
        sentence = error if isinstance(error, ChatError) or not work.explain else ChatError(work.explain(error))
        for each in columns:
            work.tell(each, sentence)
