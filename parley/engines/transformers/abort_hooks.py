"""A stop reaches the middle of a forward pass: every decoder layer of transformers looks for one."""

import torch
from transformers import PreTrainedModel

from parley.generation.streaming import raise_if_stopped


def install_abort_hooks(model: PreTrainedModel) -> int:
    """Makes every decoder layer look at its thread's brake before it runs, so that a long prefill ends too.

    Returns how many layers do. The model's output does not change.
    """
    layers = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    for layer in layers:
        if _look not in layer._forward_pre_hooks.values():  # two engines may have one model
            layer.register_forward_pre_hook(_look)
    return len(layers)


def _look(module: torch.nn.Module, args: tuple) -> None:
    raise_if_stopped()
