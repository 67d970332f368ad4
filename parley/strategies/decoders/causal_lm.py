"""What a decode loop needs of a model and of a KV cache: the surface of transformers that the loops lean on.

The names with an underscore are private to transformers; docs/ARCHITECTURE.md says which test fails when one changes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import GenerationConfig, PreTrainedConfig


class KVCache(Protocol):
    """The keys and values of some sequences."""

    def get_seq_length(self) -> int:
        """How many tokens of each sequence it holds."""
        ...

    def crop(self, max_length: int) -> None:
        """Keeps so many tokens, or drops so many where the number is negative."""

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Gives each sequence what the sequence of that index has; shape (sequences,)."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Makes each sequence so many equal ones."""

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the sequences of these indices; shape (sequences,)."""


class CausalLM(Protocol):
    """A model of transformers that `generate` runs on, or the adapter of a graph.

    Outputs are those of transformers: `logits`, `past_key_values`, `hidden_states`.
    """

    config: PreTrainedConfig
    generation_config: GenerationConfig

    @property
    def device(self) -> torch.device:
        """Where ids and logits are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, or of the logits where there are no weights."""
        ...

    def __call__(self, **inputs: Any) -> Any:
        """One forward pass."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers' own; runs a decode loop as `custom_generate`."""

    def get_memory_footprint(self) -> int:
        """Bytes of the weights."""
        ...

    def get_output_embeddings(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The head: hidden states, shape (…, width), to logits, shape (…, vocabulary)."""
        ...

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The arguments of the next forward pass, over the last so many tokens."""
        ...

    def _prefill(
        self, input_ids: torch.Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Any: ...

    def _update_model_kwargs_for_generation(self, outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]: ...

    def _get_candidate_generator(self, **kwargs: Any) -> Any: ...

    def _update_finished_beams(self, **step: Any) -> tuple[torch.Tensor, ...]: ...

    def _supports_default_dynamic_cache(self) -> bool: ...


@runtime_checkable
class PagedCausalLM(Protocol):
    """What the adapter of a graph offers beyond that."""

    @property
    def free_drafts(self) -> int:
        """How many draft tokens a pass checks in the time of none."""
        ...

    @property
    def early_layers(self) -> Sequence[int]:
        """The layers whose `early_logits` can be asked for."""
        ...

    def prefill_beside(self, cache: Any, input_ids: torch.Tensor) -> torch.Tensor:
        """Reads another prompt, shape (1, tokens), as one more sequence of the cache; logits (1, 1, vocabulary)."""
        ...

    def next_logits(self, cache: Any, input_ids: torch.Tensor) -> torch.Tensor:
        """The logits after each of `input_ids`, shape (sequences, tokens), which follow what the cache holds."""
        ...


# What `generate` hands to a decode loop, by what the loop does with it. Both take the ids so far, shape
# (sequences, tokens). Processors take and return scores, shape (sequences, vocabulary); criteria return whether each
# sequence is at its end, shape (sequences,).
Processors = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Criteria = Callable[[torch.Tensor, None], torch.Tensor]
