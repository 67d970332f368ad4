"""Lets a process be forked only while no answer is in the middle of what a forked process could not go on from.

A worker of ZeroGPU is forked from a process in which models may answer on the CPU. A lock that a thread holds at that
moment stays held in the worker for ever; torch holds one while it draws a token. So each thread that answers closes
the gate, and opens it while it waits for passes of OpenVINO, which workers do not use. A fork waits until no thread
keeps the gate closed, some milliseconds.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_changed = threading.Condition()
_num_closed = 0  # threads that keep the gate closed
_this_thread = threading.local()


def _before_fork() -> None:
    """Waits until no thread keeps the gate closed, and lets none close it until after the fork."""
    _changed.acquire()
    _changed.wait_for(lambda: not _num_closed)


if hasattr(os, "register_at_fork"):  # Windows does not have it, and does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_changed.release, after_in_child=_changed.release)


@contextmanager
def closed() -> Iterator[None]:
    """During this `with` block no process is forked, but where `opened` allows it."""
    with held():
        _this_thread.closed = True
        try:
            yield
        finally:
            _this_thread.closed = False


@contextmanager
def held() -> Iterator[None]:
    """During this `with` block no process is forked, within `opened` either."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


@contextmanager
def opened() -> Iterator[None]:
    """During this `with` block a process may be forked although this thread has closed the gate."""
    if not getattr(_this_thread, "closed", False):
        yield
        return
    _count(-1)
    try:
        yield
    finally:
        _count(1)


def _count(change: int) -> None:
    global _num_closed  # noqa: PLW0603  (one gate for the process)
    with _changed:
        _num_closed += change
        if not _num_closed:
            _changed.notify_all()
