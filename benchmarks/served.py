"""The app in a process of its own, with one model; its passes are measured in there."""

import contextlib
import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measures import endless, without_drafts
from parley.engines.openvino import turns
from parley.engines.openvino.decoder import MAX_ROWS, PassInput
from parley.engines.openvino.engine import OpenVinoEngine
from parley.engines.openvino.model_adapter import ModelAdapter
from parley.engines.openvino.paged_kv import BlockTable
from parley.engines.openvino.scheduler import Scheduler
from parley.engines.openvino.turns import RunningTurn
from parley.engines.token_rate import TokenRate
from parley.models import registry
from parley.serving import turn

DECODED = (0, 1, 2, 4, 8, 16, 32)  # single rows of passes that are timed
CHUNKS = (0, 2, 16, 32, MAX_ROWS)  # tokens of a prompt in them, as far as there is room
PASSES = 6  # of each kind that are timed
DECODING = ("generate", "draw-ahead")  # names of threads


class Served:
    """Its answers are as long as they may be, and nothing is drafted."""

    def __init__(self, folder: Path, name: str) -> None:
        """`name`: that of the model, for whoever asks."""
        self.name = name
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.url: str = self._inside(_serve, folder, name)

    def pass_seconds(self) -> float:
        """How long all passes took together, up to now."""
        return self._inside(_pass_seconds)

    def count_tokens(self, new: int) -> None:
        """Forgets the tokens that were counted; see `decoding`. Each of the next turns will have `new` tokens."""
        self._inside(_count_tokens, new)

    def decoding(self) -> tuple[float, float, float, int]:
        """From when all turns since `count_tokens` had a token until the first of them had its last one: seconds,
        seconds of them in passes, the processor's seconds of the threads that pass text on, and tokens.
        """
        return self._inside(_decoding)

    def pass_times(self, decoded_at: int, chunk_at: int) -> dict[tuple[int, int], float]:
        """Seconds of passes of single rows of as many sequences (`DECODED`) and tokens of one prompt (`CHUNKS`).

        The single rows come after `decoded_at` tokens, those of the prompt after `chunk_at`.
        """
        return self._inside(_pass_times, decoded_at, chunk_at)

    def pass_time(self, rows: int, length: int, passes: int) -> float:
        """Seconds of a pass of single rows of as many sequences, the mean from `length` tokens up."""
        return self._inside(_pass_time, rows, length, passes)

    def settle(self) -> None:
        """Waits until the answers are read again, which takes the machine from whoever is measured next."""
        self._inside(_settle)

    def close(self) -> None:
        """Ends the app."""
        self._process.shutdown()

    def _inside(self, work: Callable[..., Any], *given: object) -> Any:
        return self._process.submit(work, *given).result()


class _TokenLog(TokenRate):
    """Remembers when each turn had a token, and how long all passes had taken by then.

    At the first and the last of the `new` tokens of a turn also what the threads had taken that pass text on.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self.new = 0
        self.tokens: dict[RunningTurn, list[tuple[float, float, float]]] = {}

    def count(self) -> None:
        """See `TokenRate.count`."""
        super().count()
        known = self.tokens.setdefault(turns.current(), [])
        passing_on = _event_seconds() if len(known) in (0, self.new - 1) else 0.0
        known.append((time.perf_counter(), self._scheduler.pass_seconds, passing_on))


_kept = contextlib.ExitStack()  # in the app's process: what holds until it ends


@functools.cache
def _engine() -> OpenVinoEngine:
    """In the app's process, as all that follows: who answers."""
    engine = _kept.enter_context(turn.POOL.lease(registry.default(), lambda _: None, threading.Event()))
    if not isinstance(engine, OpenVinoEngine):
        raise RuntimeError("Many chats at once are measured on the OpenVINO engine, which this machine does not have.")
    _kept.enter_context(endless(engine.loaded))
    _kept.enter_context(without_drafts())
    engine.token_rate = _TokenLog(_model(engine).scheduler)
    return engine


def _model(engine: OpenVinoEngine | None = None) -> ModelAdapter:
    model = (engine or _engine()).loaded.model
    assert isinstance(model, ModelAdapter)
    return model


def _serve(folder: Path, name: str) -> str:
    os.environ |= {"MODEL_IDS": f"{name}={folder}", "HF_HUB_OFFLINE": "1"}  # the page is made from them
    import app
    from parley.ui import page

    url = app.demo.launch(**page.LAUNCH, prevent_thread_lock=True, quiet=True)[1]
    _engine()
    return url


def _pass_seconds() -> float:
    return _model().scheduler.pass_seconds


def _settle() -> None:
    for thread in threading.enumerate():
        if thread.name == "read-answer":
            thread.join()


def _count_tokens(new: int) -> None:
    _log().tokens.clear()
    _log().new = new


def _decoding() -> tuple[float, float, float, int]:
    turns = list(_log().tokens.values())
    begin, end = max(each[0] for each in turns), min(each[-1] for each in turns)
    tokens = sum(begin[0] < when <= end[0] for each in turns for when, *_ in each)
    return end[0] - begin[0], end[1] - begin[1], end[2] - begin[2], tokens


def _event_seconds() -> float:
    """The processor's time, up to now, of all threads of the app but those that decode."""
    passing_on = [each.ident for each in threading.enumerate() if each.name not in DECODING and each.ident]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in passing_on)


def _log() -> _TokenLog:
    log = _engine().token_rate
    assert isinstance(log, _TokenLog)
    return log


def _pass_times(decoded_at: int, chunk_at: int) -> dict[tuple[int, int], float]:
    kinds = {(rows, min(chunk, MAX_ROWS - rows)) for rows in DECODED for chunk in CHUNKS} - {(0, 0)}
    return {kind: _pass_time(kind[0], decoded_at, PASSES, (kind[1], chunk_at)) for kind in sorted(kinds)}


def _pass_time(rows: int, length: int, passes: int, chunk: tuple[int, int] = (0, 0)) -> float:
    """`chunk`: how many tokens of a prompt the pass has too, and after how many."""
    decoder, (count, begin) = _model().decoder, chunk
    prompt = _read(begin)
    batch = [PassInput(_read(length), [7], is_chunk=False) for _ in range(rows)]
    batch += [PassInput(prompt, [7] * count, is_chunk=True)] if count else []
    decoder.run(batch)  # the first of a shape takes longer
    began = time.perf_counter()
    for _ in range(passes):
        prompt.crop(begin)
        decoder.run(batch)
    return (time.perf_counter() - began) / passes


def _read(length: int) -> BlockTable:
    """A sequence of so many tokens, read as a prompt."""
    decoder = _model().decoder
    table = BlockTable(decoder.pool)
    for begin in range(0, length, MAX_ROWS):
        ids = list(range(100 + begin, 100 + min(begin + MAX_ROWS, length)))
        decoder.run([PassInput(table, ids, is_chunk=True)])
    return table
