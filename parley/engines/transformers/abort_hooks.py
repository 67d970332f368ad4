"""Hooks that stop a forward pass of transformers between two decoder layers."""

import torch
from transformers import PreTrainedModel

from parley.generation.streaming import raise_if_stopped


def install_abort_hooks(model: PreTrainedModel) -> int:
    """Makes every decoder layer check the stop signal of its thread before it runs: a stop then also ends a prefill.

    Returns the number of decoder layers. The model's output does not change.
    """
    layers = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    for layer in layers:
        if _abort_hook not in layer._forward_pre_hooks.values():  # two engines may share one model
            layer.register_forward_pre_hook(_abort_hook)
    return len(layers)


def _abort_hook(module: torch.nn.Module, args: tuple) -> None:
    raise_if_stopped()
