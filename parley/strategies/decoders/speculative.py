"""Speculative decoding as transformers has it, with its guesses counted (Leviathan et al., 2022).

https://arxiv.org/abs/2211.17192. The search is the library's own: a delegate of the model watches where the guesses
come from. It sees to it that there are as many as the configuration says, where transformers asks the draft's own, and
that what a cache has seen is not read again, which would give wrong tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.generation.candidate_generator import (
    AssistedCandidateGenerator,
    AssistedCandidateGeneratorDifferentTokenizers,
)
from transformers.generation.streamers import BaseStreamer
from transformers.generation.utils import GenerationMixin

from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors


class Tokens(BaseStreamer):
    """Hands every accepted token on."""

    def __init__(self, on_token: Callable[[torch.Tensor], None]) -> None:
        self._on_token = on_token

    def put(self, value: torch.Tensor) -> None:
        """Takes token ids of shape (1, n)."""
        self._on_token(value)

    def end(self) -> None:
        """Nothing is held back."""


def speculative(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: Processors,
    stopping_criteria: Criteria,
    generation_config: GenerationConfig,
    on_token: Callable[[torch.Tensor], None],
    on_draft: Callable[[int, int], None],
    draft: PreTrainedModel | None = None,
    tokenizers: tuple[PreTrainedTokenizerBase | None, PreTrainedTokenizerBase | None] = (None, None),
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, shape (1, tokens); returns prompt and answer, shape (1, tokens).

    The guesses come from the `draft` model; with the `tokenizers` of model and draft they are tokenised anew. Without
    a draft the configuration says where they come from. `on_draft` takes how many tokens were guessed in a step and
    how many of them the model accepted.
    """
    search: Callable[..., torch.Tensor] = GenerationMixin._assisted_decoding
    config = model.config.get_text_config()
    layers = config.num_hidden_layers
    try:
        return search(
            _Watched(model, on_draft, generation_config),
            input_ids,
            logits_processor,
            stopping_criteria,
            generation_config,
            streamer=Tokens(on_token),
            inputs_tensor=input_ids,
            assistant_model=draft,
            tokenizer=tokenizers[0],
            assistant_tokenizer=tokenizers[1],
            **inputs,
        )
    finally:
        config.num_hidden_layers = layers  # an early exit that is interrupted would leave the model cut short


class _Watched:
    """The model for one answer: the source of the guesses is listened to, and the first step mended."""

    def __init__(self, model: CausalLM, on_draft: Callable[[int, int], None], config: GenerationConfig) -> None:
        self._model, self._on_guess, self._config = model, on_draft, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As the model's. The first step of the library's search feeds the whole prompt, whatever the cache holds."""
        seen = kwargs["past_key_values"].get_seq_length()
        if next_sequence_length is None and seen:
            next_sequence_length = input_ids.shape[1] - seen
        return self._model.prepare_inputs_for_generation(
            input_ids, next_sequence_length=next_sequence_length, **kwargs
        )

    def _get_candidate_generator(self, **kwargs: Any) -> Any:
        source = self._model._get_candidate_generator(**kwargs)
        if isinstance(source, AssistedCandidateGenerator):
            wanted = {
                "num_assistant_tokens": self._config.num_assistant_tokens,
                "num_assistant_tokens_schedule": self._config.num_assistant_tokens_schedule,
                "assistant_confidence_threshold": self._config.assistant_confidence_threshold,
            }
            source.num_assistant_tokens = self._config.num_assistant_tokens
            source.assistant_generation_config.update(**wanted)  # both are the source's own copies
            source.generation_config.update(**wanted)
        if isinstance(source, AssistedCandidateGeneratorDifferentTokenizers):
            source.logits_processor = LogitsProcessorList()  # they are for the model's own tokens
        return _Counted(source, self._on_guess)


class _Counted:
    """A source of guesses that tells how many it made and how many were accepted."""

    def __init__(self, source: Any, on_draft: Callable[[int, int], None]) -> None:
        self._source, self._on_guess = source, on_draft
        self._guessed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def get_candidates(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        """Continuations of `input_ids`, shape (1, tokens)."""
        guesses = self._source.get_candidates(input_ids, *args, **kwargs)
        self._guessed = guesses[0].shape[1] - input_ids.shape[1]
        return guesses

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """Called after each check, with how many guesses were right."""
        self._on_guess(self._guessed, int(num_matches))
        self._source.update_candidate_strategy(input_ids, scores, num_matches)
