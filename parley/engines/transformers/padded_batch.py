"""One forward pass over the sequences of several calls of a model, each with a KV cache of its own.

The batch is padded on the left, the keys as well as the new tokens, and a mask hides the padding. That is how
`generate` batches prompts of different lengths, so every implementation of attention knows it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from parley.positions import Rotation

# The arguments that a call may have. One with others, such as images, is not understood here.
KNOWN_ARGUMENTS = frozenset(
    (
        "input_ids",
        "attention_mask",
        "position_ids",
        "past_key_values",
        "use_cache",
        "logits_to_keep",
        "output_hidden_states",
        "return_dict",
    )
)
# Architectures that have no `position_ids` and do without them, and those that have them and do not heed them. That is
# how all that transformers can chat with were sorted, by tiny models of each.
PLACES_FROM_MASK = frozenset(("bloom", "mpt"))
MISPLACES = frozenset(("git",))


@dataclass(frozen=True, eq=False)
class ForwardCall:
    """A call of a model that continues the sequences of a KV cache, with as many new tokens for each."""

    input_ids: torch.Tensor  # shape (sequences, tokens)
    cache: Cache
    num_logits: int  # for each sequence, those of the last tokens
    hidden_states: bool

    @property
    def num_sequences(self) -> int:
        """The number of sequences."""
        return self.input_ids.shape[0]

    @property
    def num_tokens(self) -> int:
        """The number of new tokens of each sequence."""
        return self.input_ids.shape[1]

    @property
    def num_cached(self) -> int:
        """The number of tokens of each sequence that the cache holds."""
        return self.cache.get_seq_length()

    @property
    def length(self) -> int:
        """The number of tokens of each sequence after the call."""
        return self.num_cached + self.num_tokens

    def undo(self, num_cached: int) -> None:
        """Takes the new tokens out of the cache where a pass that failed has added them."""
        for layer in self.cache.layers:
            if (added := layer.get_seq_length() - num_cached) > 0:
                layer.crop(-added)


def pads(model: PreTrainedModel) -> bool:
    """Whether the sequences of several calls can share a pass of this model.

    Each layer has to see all tokens, the keys must not depend on the length of the text, which differs, and the model
    must take the places of the tokens as they are given.
    """
    text, takes = model.config.get_text_config(decoder=True), signature(model.forward).parameters
    if not {"past_key_values", "attention_mask"} <= takes.keys() or text.model_type in MISPLACES:
        return False
    if "position_ids" not in takes and text.model_type not in PLACES_FROM_MASK:
        return False
    if not model._supports_default_dynamic_cache() or Rotation(text).at(0):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=text).layers)


def understood(arguments: Mapping[str, Any]) -> bool:
    """Whether these arguments of a call continue a text by its ids, with a mask that hides nothing."""
    ids, cache = arguments.get("input_ids"), arguments.get("past_key_values")
    if not arguments.keys() <= KNOWN_ARGUMENTS or not isinstance(ids, torch.Tensor) or ids.ndim != 2:
        return False
    if not isinstance(cache, DynamicCache) or arguments.get("use_cache") is False or not cache.layers:
        return False
    if arguments.get("return_dict") is False or not isinstance(arguments.get("logits_to_keep", 0), int):
        return False
    cached, length = cache.get_seq_length(), cache.get_seq_length() + ids.shape[1]
    mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
    if mask is not None and (mask.shape != (len(ids), length) or not bool(mask.all())):
        return False
    return positions is None or torch.equal(
        positions, torch.arange(cached, length, device=positions.device).expand(len(positions), -1)
    )


def batchable(arguments: Mapping[str, Any]) -> ForwardCall | None:
    """The call with these understood arguments; None where its cache cannot be padded."""
    ids, cache = arguments["input_ids"], arguments["past_key_values"]
    if not all(type(layer) is DynamicLayer for layer in cache.layers):
        return None
    first = cache.layers[0]
    if first.get_seq_length() and first.keys.shape[0] != len(ids):
        return None
    keep = arguments.get("logits_to_keep", 0) or ids.shape[1]
    return ForwardCall(ids, cache, keep, bool(arguments.get("output_hidden_states")))


class PaddedLayer(DynamicLayer):
    """One layer of the caches of several calls. Each of these caches gets the keys and values of its new tokens."""

    def __init__(self, parts: Sequence[tuple[DynamicLayer, ForwardCall]], num_cached: int) -> None:
        super().__init__()
        self._parts = [(layer, call.num_sequences, call.num_tokens) for layer, call in parts]
        self._num_cached = num_cached

    def get_seq_length(self) -> int:
        """The number of keys of each sequence, padding included."""
        return self._num_cached

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the new keys and values, and returns all of them, padded; shape (sequences, heads, length, width)."""
        keys, values = (self._padded(states) for states in (key_states, value_states))
        begin, tokens = 0, key_states.shape[-2]
        for layer, rows, new in self._parts:
            if not layer.is_initialized:
                layer.lazy_initialization(key_states, value_states)
            taken, cached = slice(begin, begin + rows), layer.get_seq_length()
            for name, padded, states in (("keys", keys, key_states), ("values", values, value_states)):
                own = padded[taken, :, padded.shape[-2] - cached - new :]
                if cached:
                    own[:, :, :cached] = getattr(layer, name)
                own[:, :, cached:] = states[taken, :, tokens - new :]
                padded[taken, :, : padded.shape[-2] - cached - new] = 0  # NaN would get through the mask
                setattr(layer, name, own)
            begin += rows
        return keys, values

    def _padded(self, states: torch.Tensor) -> torch.Tensor:
        rows, heads, tokens, width = states.shape
        return states.new_empty(rows, heads, self._num_cached + tokens, width)


def padded_cache(calls: Sequence[ForwardCall]) -> Cache:
    """One cache for all these calls."""
    num_cached = max(call.length for call in calls) - max(call.num_tokens for call in calls)
    layers = zip(*(call.cache.layers for call in calls), strict=True)
    return Cache(layers=[PaddedLayer(list(zip(each, calls, strict=True)), num_cached) for each in layers])


def run(
    forward: Callable[..., Any], takes: Sequence[str], calls: Sequence[ForwardCall]
) -> list[CausalLMOutputWithPast]:
    """The outputs of these calls, from one forward pass. `takes` are the arguments that the model has.

    After an exception the caches may hold some of the new tokens; see `ForwardCall.undo`.
    """
    tokens, length = max(call.num_tokens for call in calls), max(call.length for call in calls)
    device = calls[0].input_ids.device
    ids = torch.zeros(sum(call.num_sequences for call in calls), tokens, dtype=torch.long, device=device)
    positions, mask = torch.zeros_like(ids), ids.new_zeros(len(ids), length)
    rows: list[slice] = []
    for call in calls:
        begin = rows[-1].stop if rows else 0
        rows.append(slice(begin, begin + call.num_sequences))
        ids[rows[-1], tokens - call.num_tokens :] = call.input_ids
        positions[rows[-1], tokens - call.num_tokens :] = torch.arange(call.num_cached, call.length, device=device)
        mask[rows[-1], length - call.length :] = 1
    given = {"position_ids": positions, "logits_to_keep": max(call.num_logits for call in calls)}
    given = {name: value for name, value in given.items() if name in takes}
    given |= {"output_hidden_states": True} if any(call.hidden_states for call in calls) else {}
    cache = padded_cache(calls)
    output = forward(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **given)
    return [
        CausalLMOutputWithPast(
            logits=output.logits[taken, -call.num_logits :],
            past_key_values=call.cache,
            hidden_states=tuple(states[taken, -call.num_tokens :] for states in output.hidden_states)
            if call.hidden_states
            else None,
        )
        for call, taken in zip(calls, rows, strict=True)
    ]
