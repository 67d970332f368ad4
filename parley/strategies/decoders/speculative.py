"""Speculative decoding by transformers, with the draft tokens counted (Leviathan et al., 2022).

https://arxiv.org/abs/2211.17192. The search is that of transformers, run on a wrapper of the model. The wrapper counts
the draft tokens and corrects two things. The number of draft tokens is that of the generation config; transformers
takes that of the draft model. Tokens that the cache already holds are not fed again, which would give wrong tokens.
"""

from collections.abc import Callable, Sequence
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

from parley.positions import Rotation
from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors
from parley.strategies.decoders.prompt_lookup import MAX_DRAFT_TOKENS
from parley.strategies.processors.given_tokens import ForcesTokens

OnDraft = Callable[[int, int], None]  # takes the numbers of drafted and of accepted tokens
OnPass = Callable[[Sequence[int], int], None]  # takes the drafted tokens, and how many were accepted


class TokenStreamer(BaseStreamer):
    """Passes every accepted token to `on_token`."""

    def __init__(self, on_token: Callable[[torch.Tensor], None]) -> None:
        self._on_token = on_token

    def put(self, value: torch.Tensor) -> None:
        """Takes token ids of shape (1, n)."""
        self._on_token(value)

    def end(self) -> None:
        """No-op: no token is held back."""


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
    on_pass: OnPass | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, shape (1, tokens); returns prompt and answer, shape (1, tokens).

    The `draft` model makes the draft tokens. With the `tokenizers` of the model and the draft, they are converted
    through the text. Without a draft model the generation config says where they come from. After each step `on_draft`
    is called with the number of drafted tokens and the number of accepted ones, and `on_pass` with the drafted tokens.
    """
    search: Callable[..., torch.Tensor] = GenerationMixin._assisted_decoding
    return search(
        _ModelWrapper(model, on_draft, generation_config, on_pass),
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        streamer=TokenStreamer(on_token),
        inputs_tensor=input_ids,
        assistant_model=draft,
        tokenizer=tokenizers[0],
        assistant_tokenizer=tokenizers[1],
        **inputs,
    )


class _ModelWrapper:
    """The model for one answer. Wraps its candidate generator, and corrects the inputs of the first step."""

    def __init__(self, model: CausalLM, on_draft: OnDraft, config: GenerationConfig, on_pass: OnPass | None) -> None:
        self._model, self._on_draft, self._config, self._on_pass = model, on_draft, config, on_pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As the model's, but the first step leaves out the tokens that the cache holds.

        Transformers would feed the whole prompt.
        """
        cached = kwargs["past_key_values"].get_seq_length()
        if next_sequence_length is None and cached:
            next_sequence_length = input_ids.shape[1] - cached
        return self._model.prepare_inputs_for_generation(
            input_ids, next_sequence_length=next_sequence_length, **kwargs
        )

    def _get_candidate_generator(self, **kwargs: Any) -> Any:
        generator = self._model._get_candidate_generator(**kwargs)
        if isinstance(generator, AssistedCandidateGenerator):
            wanted = {
                "num_assistant_tokens": self._config.num_assistant_tokens,
                "num_assistant_tokens_schedule": self._config.num_assistant_tokens_schedule,
                "assistant_confidence_threshold": self._config.assistant_confidence_threshold,
            }
            generator.num_assistant_tokens = self._config.num_assistant_tokens
            generator.assistant_generation_config.update(**wanted)  # both configs are the generator's own copies
            generator.generation_config.update(**wanted)
        if isinstance(generator, AssistedCandidateGeneratorDifferentTokenizers):
            generator.logits_processor = LogitsProcessorList()  # the processors expect the model's tokens
        rotation = Rotation(self._model.config.get_text_config(decoder=True))
        forcing = [each for each in kwargs["logits_processor"] or () if isinstance(each, ForcesTokens)]
        if isinstance(generator, AssistedCandidateGenerator):  # its model keeps a cache of all drafts
            forcing = []
        return CandidateCounter(generator, self._on_draft, rotation, self._on_pass, forcing)


class CandidateCounter:
    """A candidate generator that reports the number of drafted and of accepted tokens.

    It leaves out drafts that would change the keys of the tokens before them.
    """

    def __init__(
        self,
        generator: Any,
        on_draft: OnDraft,
        rotation: Rotation,
        on_pass: OnPass | None = None,
        forcing: Sequence[ForcesTokens] = (),
    ) -> None:
        self._generator, self._on_draft, self._rotation, self._on_pass = generator, on_draft, rotation, on_pass
        self._forcing = forcing
        self._drafted, self._drafts = 0, torch.empty(0, dtype=torch.long)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def get_candidates(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        """Continuations of `input_ids`, shape (1, tokens)."""
        length = input_ids.shape[1]
        forced = next(filter(None, (each.after(input_ids) for each in self._forcing)), [])[: MAX_DRAFT_TOKENS - 1]
        if forced:
            candidate_ids, logits = torch.cat([input_ids, input_ids.new_tensor([forced])], -1), None
        else:
            candidate_ids, logits = self._generator.get_candidates(input_ids, *args, **kwargs)
        self._drafted = self._rotation.drafts(length, candidate_ids.shape[1] - length)
        self._drafts = candidate_ids[0, length : length + self._drafted]
        kept = None if logits is None or not self._drafted else logits[:, : self._drafted]
        return candidate_ids[:, : length + self._drafted], kept

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """Called after each check; `num_matches` is the number of accepted tokens."""
        self._on_draft(self._drafted, int(num_matches))
        if self._on_pass:
            self._on_pass(self._drafts.tolist(), int(num_matches))
        self._generator.update_candidate_strategy(input_ids, scores, num_matches)
