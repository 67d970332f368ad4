"""Errors of ZeroGPU, each as one sentence for the visitor that says what to do next."""

import logging
import re
import traceback

import gradio as gr

log = logging.getLogger("parley")

NO_ANSWER = "ZeroGPU did not answer as it should, and that has been logged. Press Retry in a moment."
CLIENT = "spaces.zero.client"  # it passes on unexpected errors, such as an invalid response of ZeroGPU
_TIME = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
_MORE = {"": " Sign in to Hugging Face for more.", "free ": " Hugging Face PRO has more.", "Pro ": ""}
# For the beginning of each error message of the `spaces` client, the sentence for the visitor.
SENTENCES: dict[str, str] = {
    r"The requested GPU duration \((\d+)s\)": (
        "This answer asks for {0} s of GPU time, more than ZeroGPU gives in one go. "
        "Lower max new tokens, and press Retry."
    ),
    r"You have exceeded your (|free |Pro )ZeroGPU quota \(\d+s requested vs. [012]s left\). Try again in ([^.]+)": (
        "Your GPU time is used up. Press Retry in {1}.{more}"  # 0 to 2 seconds are too short for any answer
    ),
    r"You have exceeded your (|free |Pro )ZeroGPU quota \((\d+)s requested vs. (\d+)s left\). Try again in ([^.]+)": (
        "This answer asks for {1} s of GPU time, and you have {2} s left. "
        "Lower max new tokens, or press Retry in {3}.{more}"
    ),
    r"You have exceeded your ZeroGPU runs limit": (
        "Your number of GPU runs is used up for now. Press Retry later; who is signed in to Hugging Face has more."
    ),
    r"You have too many ZeroGPU credits": (
        "Your answers that are still running hold all your GPU time. Press Retry when they have ended."
    ),
    r"Space app has reached its GPU limit": (
        "The GPU time for visitors who are not known to Hugging Face is used up. Sign in there, and press Retry."
    ),
    r"No GPU was available after 60s": (
        "No GPU became free within a minute. Press Retry; who is signed in to Hugging Face comes first."
    ),
    r"No GPU was available": "No GPU is free at the moment. Press Retry in a minute.",
    r"Expired ZeroGPU proxy token": (
        "Your pass for ZeroGPU has expired. Press Retry; if that does not help, copy your message and reload the page."
    ),
    r"GPU task aborted": (
        "The GPU was taken away before the answer had ended: its time was over, or the process failed. Press Retry, "
        "or Continue where an answer has begun."
    ),
    r"OutOfMemoryError": (
        "The GPU's memory was not enough. Shorten the conversation or use fewer beams, and press Retry."
    ),
}
# The beginnings of those that say that the visitor gets no GPU now. The models on the CPU answer all the same.
_NO_GPU = re.compile("You have exceeded|You have too many ZeroGPU|Space app has reached|No GPU was available")


def lacks_gpu(error: Exception) -> bool:
    """Whether the `spaces` client raised this exception because the visitor gets no GPU now."""
    return isinstance(error, gr.Error) and _NO_GPU.match(str(error.message)) is not None


def sentence(error: Exception) -> str:
    """The sentence for an exception of the `spaces` client; empty for other exceptions, and for a bug in a worker."""
    if isinstance(error, gr.Error):
        for pattern, text in SENTENCES.items():
            if found := re.match(pattern, str(error.message)):
                values = [_TIME.sub(_short_time, each) for each in found.groups()]
                return text.format(*values, more=_MORE.get(values[0], "") if values else "")
        if str(error.title) == "ZeroGPU worker error":
            return ""
    elif not any(frame.f_globals["__name__"] == CLIENT for frame, _ in traceback.walk_tb(error.__traceback__)):
        return ""
    log.warning("ZeroGPU: %s: %s", type(error).__name__, error)
    return NO_ANSWER


def _short_time(time: re.Match[str]) -> str:
    """The time of a printed `timedelta` in minutes or hours, rounded up."""
    days, hours, minutes, seconds = (int(each or 0) for each in time.groups())
    minutes += 60 * hours + 24 * 60 * days + (seconds > 0)
    if minutes < 100:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{-(-minutes // 60)} hours"
