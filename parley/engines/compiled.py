"""The pass that makes one token, compiled when a model is loaded, and never in the middle of a turn.

Most of an answer consists of such passes; a prompt, beams and guesses are computed as before. The compiler takes the
length of the cache as a symbol, so the cache stays the one that outlives the turn, and no static one is needed.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

GIVEN = {"input_ids", "attention_mask", "position_ids", "past_key_values"}
# What else may be asked for without changing what the pass of one token gives.
IDLE = {"use_cache": True, "return_dict": True, "logits_to_keep": 1}


def compile_decoding(model: PreTrainedModel, generate: Callable[[], None]) -> None:
    """Changes a model in place; `generate` has to make a few tokens with it, which takes a minute or two this once.

    What the compiled pass is not made for, such as padding or hidden states, is computed without it. In 32-bit floats
    the numbers differ in their last digits. Raises what `generate` does.
    """
    whole = model.forward
    step = torch.compile(whole, dynamic=True)

    @functools.wraps(whole)
    def forward(*args: Any, **given: Any) -> Any:
        ids, cache, mask = (given.get(name) for name in ("input_ids", "past_key_values", "attention_mask"))
        rest = {name: value for name, value in given.items() if name not in GIVEN and value is not None}
        one = not args and ids is not None and ids.shape == (1, 1) and cache is not None
        if one and rest.items() <= IDLE.items() and (mask is None or (mask.ndim == 2 and mask.all())):
            return step(input_ids=ids, past_key_values=cache, use_cache=True)  # it counts positions by itself
        return whole(*args, **given)

    model.forward = forward
    generate()
    step = torch._dynamo.run(whole)  # from now on only what is compiled already
