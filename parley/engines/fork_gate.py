"""Lets a process be forked only while no answer is in the middle of what a forked process could not go on from.

A worker of ZeroGPU is forked from a process in which a model may answer on the CPU. A lock that a thread holds at that
moment stays held in the worker for ever; torch holds one while it draws a token. So a thread that answers closes the
gate, and opens it for the passes of OpenVINO, which workers do not use. A fork waits for that, some milliseconds.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_gate = threading.Lock()
_this_thread = threading.local()
if hasattr(os, "register_at_fork"):  # Windows does not have it, and does not fork
    os.register_at_fork(before=_gate.acquire, after_in_parent=_gate.release, after_in_child=_gate.release)


@contextmanager
def closed() -> Iterator[None]:
    """During this `with` block no process is forked, but where `opened` allows it."""
    with _gate:
        _this_thread.closed = True
        try:
            yield
        finally:
            _this_thread.closed = False


@contextmanager
def opened() -> Iterator[None]:
    """During this `with` block a process may be forked although this thread has closed the gate."""
    if not getattr(_this_thread, "closed", False):
        yield
        return
    _gate.release()
    try:
        yield
    finally:
        _gate.acquire()
