"""What a visitor reads when ZeroGPU gives no GPU, or takes it away: one sentence that says what to do next."""

import logging
import re

import gradio as gr
import httpx

log = logging.getLogger("parley")

NO_ANSWER = "ZeroGPU did not answer as it should, and that has been logged. Press Retry in a moment."
_MORE = {"": " Sign in to Hugging Face for more.", "free ": " Hugging Face PRO has more.", "Pro ": ""}
# What the client of `spaces` says, by the beginning of its message, and what the visitor reads.
SENTENCES: dict[str, str] = {
    r"The requested GPU duration \((\d+)s\)": (
        "This answer asks for {0} s of GPU time, more than ZeroGPU gives in one go. "
        "Lower max new tokens, and press Retry."
    ),
    r"You have exceeded your (|free |Pro )ZeroGPU quota \((\d+)s requested vs. (\d+)s left\). Try again in ([^.]+)": (
        "This answer asks for {1} s of GPU time, and you have {2} s left. "
        "Lower max new tokens, or press Retry in {3} hours.{more}"
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


def sentence(error: Exception) -> str:
    """For an exception of the client of `spaces`, its own sentence; empty for any other, and for a bug in a worker."""
    if isinstance(error, gr.Error):
        for pattern, text in SENTENCES.items():
            if found := re.match(pattern, str(error.message)):
                return text.format(*found.groups(), more=_MORE.get(found[1], "") if found.groups() else "")
        if str(error.title) == "ZeroGPU worker error":
            return ""
    elif not isinstance(error, httpx.HTTPError) and not str(error).startswith(("ZeroGPU API", "Unexpected end of")):
        return ""
    log.warning("ZeroGPU: %s: %s", type(error).__name__, error)
    return NO_ANSWER
