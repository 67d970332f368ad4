"""Greedy search and sampling with the same tokens as in transformers, and with drafts from the text itself.

Each token is drawn separately and in order. So neither the distribution nor, with a seed, the text depends on the
drafts. That is stricter than speculative sampling (Leviathan et al., 2022, https://arxiv.org/abs/2211.17192), which
keeps the distribution only. It accepts as many drafts, because these drafts have no probabilities of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from parley.positions import Rotation
from parley.strategies.decoders.causal_lm import (
    AsksForLogits,
    CausalLM,
    CriterionOfAll,
    KVCache,
    PagedCausalLM,
    in_company,
    next_inputs,
)
from parley.strategies.decoders.prompt_lookup import MAX_DRAFT_TOKENS, PromptLookup
from parley.strategies.decoders.sampling import Sampler
from parley.strategies.processors.given_tokens import ForcesTokens
from parley.strategies.processors.guidance import split_guidance


@torch.no_grad()
def decode_loop(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    on_token: Callable[[Sequence[int]], None],
    on_draft: Callable[[int, int], None],
    lookup: bool,
    generator: torch.Generator | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, shape (1, tokens); returns prompt and answer, shape (1, tokens).

    Only for models with a KV cache. `lookup` turns drafting on. Then the cache must be croppable, and the processors
    must not keep state between calls. After each step with drafts `on_draft` is called with the number of drafted
    tokens and the number of accepted ones. Draws come from `generator`, on the device of the model; without one, from
    the global generator.
    """
    paged = model if isinstance(model, PagedCausalLM) else None
    guidance, processors = split_guidance(logits_processor, input_ids) if paged else (None, logits_processor)
    drafts = _Drafts(model, input_ids, processors, generation_config.max_length, on_draft, lookup)
    inputs.pop("synced_gpus", None)
    outputs = model._prefill(input_ids, generation_config, inputs)
    cache = outputs.past_key_values
    logits = outputs.logits[:, -1:].to(torch.float32, copy=True)
    if paged and guidance:
        logits = torch.cat([logits, paged.prefill_beside(cache, guidance.negative_ids)])  # (2, 1, vocabulary)
    sampler, ends = Sampler(processors, generation_config.do_sample, generator), _ends(stopping_criteria)
    text = torch.cat([input_ids, input_ids.new_empty(1, generation_config.max_length - input_ids.shape[1])], dim=-1)

    def choose(input_ids: torch.Tensor, logits: torch.Tensor) -> int:
        return sampler(input_ids, guidance(logits) if guidance else logits)

    def take(input_ids: torch.Tensor, token: int) -> bool:
        on_token([token])
        drafts.append(token)
        at_end = ends(input_ids, token)
        if paged and not at_end:  # a model of torch has a use for the other cores while a token is chosen
            sampler.draw_ahead()
        return at_end

    steps = _steps(text, input_ids.shape[1], logits, choose, take, drafts, cache)
    return paged.drive(cache, steps) if paged else _drive(model, inputs, cache, steps)


def _steps(
    text: torch.Tensor,
    length: int,
    logits: torch.Tensor,
    choose: Callable[[torch.Tensor, torch.Tensor], int],
    take: Callable[[torch.Tensor, int], bool],
    drafting: "_Drafts",
    cache: KVCache,
) -> AsksForLogits[torch.Tensor]:
    """Chooses tokens from `logits`, shape (sequences, 1, vocabulary), and from those that it asks for, until the end.

    `text`, shape (1, tokens), has room for all of them after the prompt, which has `length` tokens. `take` tells
    whether a token is the last one.
    """
    # An array takes a number in a tenth of the time.
    tokens = text[0].numpy() if text.device.type == "cpu" else text[0]
    so_far, drafts = text[:, :length], list[int]()
    while True:
        num_accepted, at_end = 0, False
        for position in range(len(drafts) + 1):
            token = choose(so_far, logits[:, position])
            tokens[length] = token
            length += 1
            so_far = text[:, :length]
            at_end = take(so_far, token)
            accepted = drafts[position : position + 1] == [token]
            num_accepted += accepted
            if at_end or not accepted:
                break
        if drafts:
            drafting.record(len(drafts), num_accepted)
            cache.crop(num_accepted - len(drafts))
        if at_end:
            return so_far
        drafts = drafting.propose(so_far)
        ahead = torch.cat([so_far, so_far.new_tensor([drafts])], dim=-1) if drafts else so_far
        logits = yield ahead, [token, *drafts]


def _drive(
    model: CausalLM, inputs: Mapping[str, Any], cache: KVCache, steps: AsksForLogits[torch.Tensor]
) -> torch.Tensor:
    """Runs the loop to its end with passes of a model of transformers."""
    try:
        input_ids, new = next(steps)
        while True:
            input_ids, new = steps.send(_next_logits(model, inputs, cache, input_ids, len(new)))
    except StopIteration as end:
        return end.value


class _Drafts:
    """What may follow a text: the tokens that a processor forces, or else those that followed its last ones before."""

    def __init__(
        self,
        model: CausalLM,
        input_ids: torch.Tensor,
        processors: Sequence[Any],
        max_length: int,
        on_draft: Callable[[int, int], None],
        lookup: bool,
    ) -> None:
        self._model, self._max_length, self._on_draft, self._lookup = model, max_length, on_draft, lookup
        self._paged = model if isinstance(model, PagedCausalLM) else None
        self._forcing = [each for each in processors if isinstance(each, ForcesTokens)]
        self._rotation = Rotation(model.config.get_text_config(decoder=True))
        self._prompt_lookup = PromptLookup(input_ids[0].tolist(), self._paged.free_drafts if self._paged else 0)

    def append(self, token: int) -> None:
        """Takes the next token of the text."""
        self._prompt_lookup.append(token)

    def propose(self, input_ids: torch.Tensor) -> list[int]:
        """The drafts after this text, shape (1, tokens); none where they would take rows from other turns."""
        if not self._lookup or (not self._paged and in_company(self._model)):
            return []
        alone = not self._paged or self._paged.free_drafts > 0
        length = input_ids.shape[1]
        room = self._max_length - length - 1
        drafts = _forced(self._forcing, input_ids, room) or self._prompt_lookup.propose(room, alone=alone)
        return drafts[: self._rotation.drafts(length, len(drafts))]

    def record(self, drafted: int, accepted: int) -> None:
        """Takes note of what became of them, after the tokens were appended."""
        self._on_draft(drafted, accepted)
        self._prompt_lookup.record(drafted, accepted)


def _forced(processors: Sequence[ForcesTokens], input_ids: torch.Tensor, room: int) -> list[int]:
    """Drafts that will all be accepted, at most `room`: the tokens that the last of these processors forces."""
    forced = next(filter(None, (each.after(input_ids) for each in reversed(processors))), [])
    return forced[: min(room, MAX_DRAFT_TOKENS - 1)]


def _ends(criteria: StoppingCriteriaList) -> Callable[[torch.Tensor, int], bool]:
    """Whether the text, shape (1, tokens), whose last token is given too, ends. The known criteria need no tensor."""
    max_length = min((each.max_length for each in criteria if type(each) is MaxLengthCriteria), default=math.inf)
    end_ids = {id for each in criteria if type(each) is EosTokenCriteria for id in each.eos_token_id.tolist()}
    others = [each for each in criteria if type(each) not in (MaxLengthCriteria, EosTokenCriteria)]
    of_all = [each for each in others if isinstance(each, CriterionOfAll)]
    others = [each for each in others if not isinstance(each, CriterionOfAll)]

    def ends(input_ids: torch.Tensor, token: int) -> bool:
        return (
            token in end_ids
            or input_ids.shape[1] >= max_length
            or any(each.is_met for each in of_all)
            or any(bool(each(input_ids, None).all()) for each in others)
        )

    return ends


def _next_logits(
    model: CausalLM, inputs: Mapping[str, Any], cache: KVCache, input_ids: torch.Tensor, count: int
) -> torch.Tensor:
    """The logits after each of the last `count` tokens, in float32. The caller may change them in place."""
    given = next_inputs(inputs, cache, input_ids)
    given |= {"logits_to_keep": count} if "logits_to_keep" in given else {}
    outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=count, **given))
    return outputs.logits.to(torch.float32, copy=True)
