"""Hooks that stop a forward pass of transformers between two decoder layers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from parley.generation.streaming import Interrupted, raise_if_stopped

_this_thread = threading.local()


def install_abort_hooks(model: PreTrainedModel) -> int:
    """Makes every decoder layer check whether its pass is still wanted before it runs: a stop also ends a prefill.

    Returns the number of decoder layers. The model's output does not change.
    """
    layers = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    for layer in layers:
        if _abort_hook not in layer._forward_pre_hooks.values():  # two engines may share one model
            layer.register_forward_pre_hook(_abort_hook)
    return len(layers)


@contextmanager
def stopped_if(stopped: Callable[[], bool]) -> Iterator[None]:
    """During this `with` block the passes in this thread end if `stopped`, and not with the turn of this thread."""
    _this_thread.stopped = stopped
    try:
        yield
    finally:
        _this_thread.stopped = None


def _abort_hook(module: torch.nn.Module, args: tuple) -> None:
    if stopped := getattr(_this_thread, "stopped", None):
        if stopped():
            raise Interrupted
    else:
        raise_if_stopped()
