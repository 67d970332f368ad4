"""What went wrong in a turn: for a visitor as one sentence, for a program with a code as well."""

import logging

import gradio as gr

from parley.api.turns import zerogpu_errors
from parley.errors import ChatError
from parley.serving import turn

log = logging.getLogger("parley")

BROKEN = "Something went wrong inside Parley, and it has been logged. Press Retry, or try another model."
FULL = "The memory of this machine is used up. Ask for a shorter answer, or shorten the conversation."


def explained(error: Exception) -> ChatError:
    """The error with a sentence for the visitor, who cannot see any other. Logs what is a bug."""
    if isinstance(error, ChatError):
        return error
    if sentence := zerogpu_errors.sentence(error):
        other = turn.cpu_model() if zerogpu_errors.lacks_gpu(error) else None
        return ChatError(sentence, code="quota", name="model" if other else "", valid=[other.name] if other else None)
    log.error("a turn failed", exc_info=error)
    if _lacks_memory(error):
        return ChatError(FULL, code="model_unavailable")
    return ChatError(BROKEN, code="internal")


def _lacks_memory(error: Exception) -> bool:
    """Whether an allocation failed. PyTorch, not imported here, has an exception for GPUs only."""
    told = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return told or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def program_error(error: ChatError) -> gr.Error:
    """The error for a program that calls through Gradio: its message is the sentence, and its title the code.

    Gradio's clients take nothing else.
    """
    gpu = error.code == "quota" and error.valid
    way_out = f" Or name the model {error.valid[0]!r}, which needs no GPU." if gpu else ""
    return gr.Error(f"{error}{way_out}", title=error.code, print_exception=False)
