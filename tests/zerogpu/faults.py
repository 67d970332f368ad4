"""What may go wrong between a visitor and a GPU, how to bring it about, and what the visitor reads."""

import base64
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.conftest import until
from tests.zerogpu.conftest import ZeroGpuSpace
from tests.zerogpu.device_api import ALL_SAID, FAILED, Refusal

TOKEN = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", b'{"user": "ada"}', b"x"))

Strike = Callable[[], None]  # to be called once the question is on its way


@dataclass(frozen=True)
class Fault:
    """A context in which it happens; `costs` a worker, or leaves the one that is there."""

    happens_to: Callable[[ZeroGpuSpace], AbstractContextManager[Strike]]
    sentence: str  # a pattern for all of it
    token: str | None = None
    costs: bool = False
    logged: str = ""
    no_gpu: bool = False  # the visitor gets none now, and can go on on the CPU


def refused(status: int, **rest) -> Callable[[ZeroGpuSpace], AbstractContextManager[Strike]]:
    @contextmanager
    def happens_to(zero: ZeroGpuSpace) -> Iterator[Strike]:
        zero.api.refusals.append(Refusal(status, **rest))
        yield lambda: None

    return happens_to


def denied(result, left=10, wait=3600, auth=None):
    headers = (("X-Approve-Result", result), *([("X-Authenticated", auth)] if auth else []))
    return refused(429, body={"left": left, "wait": wait}, headers=headers)


def waited_in_vain(ending: bytes) -> Callable[[ZeroGpuSpace], AbstractContextManager[Strike]]:
    @contextmanager
    def happens_to(zero: ZeroGpuSpace) -> Iterator[Strike]:
        def strike():
            until(lambda: zero.api.line)
            zero.api.ending = ending

        with zero.api.occupied():
            try:
                yield strike
            finally:
                zero.api.ending = None

    return happens_to


@contextmanager
def broken(zero: ZeroGpuSpace) -> Iterator[Strike]:
    zero.fault.touch()
    try:
        yield lambda: None
    finally:
        zero.fault.unlink()


ASKED = r"This answer asks for \d+ s of GPU time, and you have 10 s left\. Lower max new tokens, or press Retry in "
SIGN_IN = r" Sign in to Hugging Face for more\."
NO_ANSWER = r"ZeroGPU did not answer as it should, and that has been logged\. Press Retry in a moment\."
A_MINUTE = r"No GPU became free within a minute\. Press Retry; who is signed in to Hugging Face comes first\."

FAULTS = {
    "quota, anonymous": Fault(denied("quota-exceeded"), rf"{ASKED}60 minutes\.{SIGN_IN}", TOKEN, no_gpu=True),
    "quota, free": Fault(
        denied("quota-exceeded", auth="regular", wait=59),
        rf"{ASKED}1 minute\. Hugging Face PRO has more\.",
        TOKEN,
        no_gpu=True,
    ),
    "quota, PRO": Fault(denied("quota-exceeded", auth="pro", wait=90_001), rf"{ASKED}26 hours\.", TOKEN, no_gpu=True),
    "quota, nothing left": Fault(
        denied("quota-exceeded", left=0, wait=301),
        rf"Your GPU time is used up\. Press Retry in 6 minutes\.{SIGN_IN}",
        TOKEN,
        no_gpu=True,
    ),
    "quota, unknown": Fault(
        denied("quota-exceeded"),
        r"The GPU time for visitors who are not known to Hugging Face is used up\. Sign in there, and press Retry\.",
        no_gpu=True,
    ),
    "runs": Fault(
        denied("runs-exceeded", wait=0),
        r"Your number of GPU runs is used up for now\. Press Retry later; who is signed in to Hugging Face has more\.",
        TOKEN,
        no_gpu=True,
    ),
    "pending": Fault(
        denied("pending-overquota-exceeded"),
        r"Your answers that are still running hold all your GPU time\. Press Retry when they have ended\.",
        TOKEN,
        no_gpu=True,
    ),
    "illegal": Fault(
        denied("illegal-duration", wait=-1),
        r"This answer asks for \d+ s of GPU time, more than ZeroGPU gives in one go\. "
        r"Lower max new tokens, and press Retry\.",
        TOKEN,
    ),
    "no GPU": Fault(refused(503), r"No GPU is free at the moment\. Press Retry in a minute\.", no_gpu=True),
    "expired": Fault(
        refused(401),
        r"Your pass for ZeroGPU has expired\. Press Retry; "
        r"if that does not help, copy your message and reload the page\.",
        TOKEN,
    ),
    "server error": Fault(refused(500), NO_ANSWER, logged="ZeroGPU API /schedule error"),
    "no answer": Fault(refused(0), NO_ANSWER, logged="RemoteProtocolError"),
    "not understood": Fault(refused(200, body={"sorry": True}), NO_ANSWER, logged="ValidationError"),
    "a minute is over": Fault(waited_in_vain(FAILED + ALL_SAID), A_MINUTE, costs=True, no_gpu=True),
    "a minute is over, known": Fault(waited_in_vain(FAILED + ALL_SAID), A_MINUTE, TOKEN, costs=True, no_gpu=True),
    "hung up on": Fault(waited_in_vain(ALL_SAID), NO_ANSWER, costs=True, logged="Unexpected end of stream"),
    "cut off twice": Fault(waited_in_vain(b""), NO_ANSWER, costs=True, logged="Error while re-trying"),
    "broken GPU": Fault(
        broken,
        r"Something went wrong inside Parley, and it has been logged\. Press Retry, or try another model\.",
        costs=True,
        logged="CUDA error: an illegal memory access",
    ),
}
