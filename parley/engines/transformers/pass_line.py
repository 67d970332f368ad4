"""The order in which the threads of all turns get forward passes on one device, one pass at a time.

The thread whose request comes next leads: it takes other requests of the same model along. So a turn that is alone
waits for nobody and changes no thread, and what has to run in the thread of its turn does.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from parley.generation.streaming import Interrupted

# How long a pass waits for turns that are choosing their next token, as a share of the time of the last pass.
CHOOSING_SHARE = 0.3
THREADS = torch.get_num_threads()  # of an operation of torch, before a turn of another engine changes it


@dataclass(eq=False)
class PassRequest:
    """What one thread waits for: a forward pass, or its part of one."""

    group: object  # requests of one group may share a pass
    is_chunk: bool  # whether it reads a chunk of a long prompt
    stopped: Callable[[], bool]
    thread: int = field(default_factory=threading.get_ident)
    output: Any = None
    error: BaseException | None = None
    done: bool = False
    num_left_out: int = 0  # passes that began while it waited and did not have it
    wake: threading.Lock = field(default_factory=threading.Lock)  # held while the thread has to wait

    def __post_init__(self) -> None:
        self.wake.acquire()


class PassLine:
    """Who waits for a pass on one device.

    Who decodes goes first. While chunks of prompts wait, every second pass is one of theirs.
    """

    def __init__(self) -> None:
        # Each thread that computes has OpenMP threads of its own, and those of many take time from each other: one
        # thread for shared passes took a fifth less of two cores than passes in the threads of eight turns.
        self.shared = ThreadPoolExecutor(1, "shared-passes", torch.set_num_threads, (THREADS,))
        self._changed = threading.Condition()
        self._waiting: list[PassRequest] = []  # in the order of asking
        self._is_busy = False
        self._turns: set[int] = set()  # the threads of the turns that run
        self._choosing: dict[int, object] = {}  # threads of turns that will soon ask again, and the group they were in
        self._last_was_chunk = True
        self._began = self._last_seconds = 0.0
        self.num_passes = 0
        self.max_left_out = 0  # the most passes that a decode loop had to let go by after the one that ran

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Makes this thread that of a running turn during a `with` block."""
        me = threading.get_ident()
        with self._changed:
            self._turns.add(me)
        try:
            yield
        finally:
            with self._changed:
                self._turns.discard(me)
                self._choosing.pop(me, None)
                self._changed.notify_all()

    @property
    def in_company(self) -> bool:
        """Whether another turn than that of this thread runs."""
        return len(self._turns) > (threading.get_ident() in self._turns)

    @contextmanager
    def place(self, request: PassRequest) -> Iterator[bool]:
        """Waits until this request comes next, or until another thread has run it. Yields whether it comes next.

        Then the pass runs in the `with` block. The line goes on at its end.
        """
        with self._changed:
            self._choosing.pop(request.thread, None)
            has_to_wait, self._is_busy = self._is_busy, True
            if has_to_wait:
                self._waiting.append(request)
                self._changed.notify_all()
            else:
                self._last_was_chunk = request.is_chunk
        if has_to_wait:
            request.wake.acquire()
        if request.done:
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                self._go_on()

    def gather(self, request: PassRequest, choose: Callable[[Sequence[PassRequest]], Sequence[PassRequest]]) -> None:
        """Takes those requests out of the line that `choose` picks from the waiting ones of the same group.

        First it waits a moment for turns that are choosing a token, because they will want to be in the pass.
        """
        deadline = time.perf_counter() + CHOOSING_SHARE * self._last_seconds
        with self._changed:
            while not request.is_chunk and request.group in self._choosing.values():
                if (left := deadline - time.perf_counter()) <= 0:
                    break
                self._changed.wait(left)
            self._choosing = {thread: group for thread, group in self._choosing.items() if group != request.group}
            for each in choose([each for each in self._waiting if each.group == request.group and not each.stopped()]):
                self._waiting.remove(each)
            for each in self._waiting:
                each.num_left_out += 1
                if not each.is_chunk:
                    self.max_left_out = max(self.max_left_out, each.num_left_out)
            self._began = time.perf_counter()
            self.num_passes += 1

    def finish(self, requests: Sequence[PassRequest]) -> None:
        """Wakes the threads of these requests, which have their outputs or errors."""
        with self._changed:
            self._last_seconds = time.perf_counter() - self._began
            for each in requests:
                each.done = True
                each.wake.release()
                if each.thread in self._turns:
                    self._choosing[each.thread] = each.group

    def _go_on(self) -> None:
        """Gives the next pass to a waiting request. Those of stopped turns leave."""
        for each in [each for each in self._waiting if each.stopped()]:
            each.done, each.error = True, Interrupted()
            self._waiting.remove(each)
            each.wake.release()
        decoding = [each for each in self._waiting if not each.is_chunk]
        chunks = [each for each in self._waiting if each.is_chunk]
        first, second = (decoding, chunks) if self._last_was_chunk else (chunks, decoding)
        chosen = next(iter(first or second), None)
        self._is_busy = chosen is not None
        if chosen is None:
            return
        self._waiting.remove(chosen)
        self._last_was_chunk = chosen.is_chunk
        chosen.wake.release()


_lines: dict[str, PassLine] = {}
_lines_lock = threading.Lock()


def line_of(device: str) -> PassLine:
    """The line of a device, which the models of this process share."""
    with _lines_lock:
        return _lines.setdefault(device, PassLine())


def _renew() -> None:
    """Gives a forked process lines in which nobody stands: the turns that run go on in the parent alone."""
    global _lines_lock  # noqa: PLW0603  (a lock that another thread held cannot be released here)
    _lines_lock = threading.Lock()
    _lines.clear()


if hasattr(os, "register_at_fork"):  # Windows does not have it, and does not fork
    os.register_at_fork(after_in_child=_renew)
