"""The end of the app. Ctrl-C and SIGTERM let answers go on for a while, then end them, then the process."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from parley.config import MAX_STOP_SECONDS
from parley.errors import TurnRefused

ENDING = threading.Event()  # set when nobody is admitted any more
CUT = threading.Event()  # set when the turns that still run have to end
# What is waited for: that no turn runs, and that every stream is read. Set by who knows.
IDLE: list[Callable[[], bool]] = []
CUT_SECONDS = 2.0  # for which turns that were cut may send their last words
COME_BACK_SECONDS = 10  # after which the app will probably be there again
LOOK_SECONDS = 0.05
SENTENCE = f"The app is being restarted. Press Retry in {COME_BACK_SECONDS} s."
_log = logging.getLogger("parley")


def refusal() -> TurnRefused:
    """What a visitor is told whose turn does not begin any more, or does not come to its end."""
    return TurnRefused(SENTENCE, "stopping", COME_BACK_SECONDS)


def handle_signals() -> None:
    """Ends this process in order after Ctrl-C (exit code 130) or SIGTERM (0). Call it first, in the main thread."""
    here = os.getpid()

    def handle(number: int, _: FrameType | None) -> None:
        if os.getpid() != here:  # a worker of ZeroGPU, which is a fork
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            _end(130 if number == signal.SIGINT else 0)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handle)


def _end(code: int) -> None:
    if not ENDING.is_set():  # else it is the second signal, of someone who does not want to wait
        ENDING.set()
        _log.info("Ending: answers may go on for %d s", MAX_STOP_SECONDS.read())
        _wait(MAX_STOP_SECONDS.read())
        CUT.set()
        _wait(CUT_SECONDS)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Not `sys.exit`: it would take Python apart while threads of the libraries still compute, which aborts.
    os._exit(code)


def _wait(seconds: float) -> None:
    """Waits until nothing runs any more, for this time at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not all(is_idle() for is_idle in IDLE):
        time.sleep(LOOK_SECONDS)
