"""Draws from the generator of a turn where transformers draws from the global one.

So several turns can sample at the same time, each with its own seed, and get what `torch.manual_seed` would give them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

DRAWS = (torch.multinomial, torch.Tensor.multinomial, torch.rand, torch.rand_like)  # all that `generate` uses


class DrawFrom(TorchFunctionMode):
    """While it is entered, the draws of this thread come from `generator`, on the device of the model."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides`."""
        given = dict(kwargs or {})
        if func in DRAWS and given.get("generator") is None:
            given["generator"] = self._generator
        return func(*args, **given)
