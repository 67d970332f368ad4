"""The interface of a model and of a KV cache that the decode loops use.

Names with an underscore are private to transformers. docs/ARCHITECTURE.md says which test fails when one changes.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from transformers import GenerationConfig, PreTrainedConfig

T = TypeVar("T")
# A decode loop that yields the ids so far, shape (1, tokens), and the last of them, which the cache does not hold. All
# sequences of the cache go on with these. It gets the logits after each of them, shape (sequences, count, vocabulary),
# which it may change.
AsksForLogits = Generator[tuple[torch.Tensor, list[int]], torch.Tensor, T]


class KVCache(Protocol):
    """The keys and values of a batch of sequences."""

    def get_seq_length(self) -> int:
        """The number of tokens of each sequence."""
        ...

    def crop(self, max_length: int) -> None:
        """Keeps `max_length` tokens; a negative number is the number of tokens to drop from the end."""

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Replaces each sequence by the one at that index; shape (sequences,)."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each sequence `repeats` times."""

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the sequences of these indices; shape (sequences,)."""


class CausalLM(Protocol):
    """A transformers model with `generate`, or the adapter of an OpenVINO graph.

    Outputs are those of transformers: `logits`, `past_key_values`, `hidden_states`.
    """

    config: PreTrainedConfig
    generation_config: GenerationConfig

    @property
    def device(self) -> torch.device:
        """The device of ids and logits."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, or of the logits where there are no weights."""
        ...

    def __call__(self, **inputs: Any) -> Any:
        """One forward pass."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; runs a decode loop as `custom_generate`."""

    def get_memory_footprint(self) -> int:
        """Bytes of the weights."""
        ...

    def get_output_embeddings(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The output head. It takes hidden states, shape (…, width), and returns logits, shape (…, vocabulary)."""
        ...

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The arguments of the next forward pass, over the last `next_sequence_length` tokens."""
        ...

    def _prefill(
        self, input_ids: torch.Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Any: ...

    def _update_model_kwargs_for_generation(self, outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]: ...

    def _get_candidate_generator(self, **kwargs: Any) -> Any: ...

    def _update_finished_beams(self, **step: Any) -> tuple[torch.Tensor, ...]: ...

    def _beam_search_has_unfinished_sequences(self, *state: Any) -> torch.Tensor: ...

    def _supports_default_dynamic_cache(self) -> bool: ...


@runtime_checkable
class PagedCausalLM(Protocol):
    """The further methods of the adapter of an OpenVINO graph."""

    @property
    def free_drafts(self) -> int:
        """How many draft tokens a pass checks without taking longer."""
        ...

    @property
    def early_layers(self) -> Sequence[int]:
        """The layers for which `early_logits` are available."""
        ...

    def prefill_beside(self, cache: Any, input_ids: torch.Tensor) -> torch.Tensor:
        """Prefills another prompt, shape (1, tokens), as one more sequence of the cache; logits (1, 1, vocabulary)."""
        ...

    def drive(self, cache: Any, loop: AsksForLogits[T]) -> T:
        """Runs the decode loop to its end, and returns what it returns. See `AsksForLogits`."""
        ...


@runtime_checkable
class SharesPasses(Protocol):
    """The `forward` of a model whose passes several turns share."""

    @property
    def in_company(self) -> bool:
        """Whether another turn runs, which wants rows of the passes."""
        ...


def in_company(model: CausalLM) -> bool:
    """Whether draft tokens would take rows of a pass from another turn. A paged model tells it by `free_drafts`."""
    forward = getattr(model, "forward", None)
    return isinstance(forward, SharesPasses) and forward.in_company


# What `generate` passes to a decode loop. Both take the ids so far, shape (sequences, tokens). Processors take and
# return scores, shape (sequences, vocabulary). Criteria return whether each sequence has ended, shape (sequences,).
Processors = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Criteria = Callable[[torch.Tensor, None], torch.Tensor]


@runtime_checkable
class CriterionOfAll(Protocol):
    """One of the criteria, which ends all sequences together. It tells that without a tensor."""

    @property
    def is_met(self) -> bool:
        """Whether there is a reason to end."""
        ...


KEPT_INPUTS = ("output_hidden_states", "logits_to_keep")


def next_inputs(inputs: Mapping[str, Any], cache: KVCache, input_ids: torch.Tensor) -> dict[str, Any]:
    """What `prepare_inputs_for_generation` takes beside `input_ids`, shape (sequences, tokens), without padding.

    `inputs` are those of the prefill. Some architectures would number the tokens in another way than `generate` does,
    so the places of all tokens are given where the prefill got them.
    """
    given = {name: inputs[name] for name in KEPT_INPUTS if name in inputs}
    given |= {"past_key_values": cache, "attention_mask": torch.ones_like(input_ids), "use_cache": True}
    if "position_ids" in inputs:
        given["position_ids"] = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    return given
