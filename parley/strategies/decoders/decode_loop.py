"""Greedy search and sampling with the same tokens as in transformers, and with drafts from the text itself.

Each token is drawn separately and in order. So neither the distribution nor, with a seed, the text depends on the
drafts. That is stricter than speculative sampling (Leviathan et al., 2022, https://arxiv.org/abs/2211.17192), which
keeps the distribution only. It accepts as many drafts, because these drafts have no probabilities of their own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from parley.positions import Rotation
from parley.strategies.decoders.causal_lm import CausalLM, KVCache, PagedCausalLM, in_company, next_inputs
from parley.strategies.decoders.prompt_lookup import MAX_DRAFT_TOKENS, PromptLookup
from parley.strategies.decoders.sampling import Sampler
from parley.strategies.processors.given_tokens import GivenTokens
from parley.strategies.processors.guidance import split_guidance


@torch.no_grad()
def decode_loop(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    on_token: Callable[[torch.Tensor], None],
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
    guidance, processors = None, logits_processor
    paged = model if isinstance(model, PagedCausalLM) else None
    if paged:
        guidance, processors = split_guidance(logits_processor, input_ids)
    given = next((each for each in processors if isinstance(each, GivenTokens)), None)
    sampler = Sampler(processors, generation_config.do_sample, generator)
    lookup_drafts, drafts = PromptLookup(input_ids[0].tolist(), paged.free_drafts if paged else 0), list[int]()
    inputs = {name: value for name, value in inputs.items() if name != "synced_gpus"}
    outputs = model._prefill(input_ids, generation_config, inputs)
    cache, rotation = outputs.past_key_values, Rotation(model.config.get_text_config(decoder=True))
    logits = outputs.logits[:, -1:].to(torch.float32, copy=True)
    if paged and guidance:
        logits = torch.cat([logits, paged.prefill_beside(cache, guidance.negative_ids)])  # (2, 1, vocabulary)
    while True:
        logits = logits[:, -len(drafts) - 1 :]  # (sequences, drafts + 1, vocabulary)
        num_accepted = 0
        for position in range(len(drafts) + 1):
            token = sampler(input_ids, guidance(logits[:, position]) if guidance else logits[:, position])
            input_ids = torch.cat([input_ids, token], dim=-1)
            on_token(token.cpu())
            at_end = any(bool(each(input_ids, None).all()) for each in stopping_criteria)
            accepted = drafts[position : position + 1] == [int(token)]
            num_accepted += accepted
            lookup_drafts.append(int(token))
            if at_end or not accepted:
                break
        if drafts:
            on_draft(len(drafts), num_accepted)
            lookup_drafts.record(len(drafts), num_accepted)
            cache.crop(num_accepted - len(drafts))
        if at_end:
            return input_ids
        drafting = lookup and not in_company(model)
        room = generation_config.max_length - input_ids.shape[1] - 1 if drafting else 0
        begun = given.after(input_ids.shape[1]) if given and drafting else []  # which all will be accepted
        drafts = begun[: min(room, MAX_DRAFT_TOKENS - 1)]
        drafts = drafts or lookup_drafts.propose(room, alone=not paged or paged.free_drafts > 0)
        drafts = drafts[: rotation.drafts(input_ids.shape[1], len(drafts))]
        ahead = torch.cat([input_ids, input_ids.new_tensor([drafts])], dim=-1)
        ahead = ahead.expand(2, -1) if guidance else ahead
        logits = _next_logits(model, inputs, cache, ahead, len(drafts) + 1)


def _next_logits(
    model: CausalLM, inputs: Mapping[str, Any], cache: KVCache, input_ids: torch.Tensor, count: int
) -> torch.Tensor:
    """The logits after each of the last `count` tokens, in float32. The caller may change them in place."""
    if isinstance(model, PagedCausalLM):
        return model.next_logits(cache, input_ids[:, -count:])
    given = next_inputs(inputs, cache, input_ids)
    given |= {"logits_to_keep": count} if "logits_to_keep" in given else {}
    outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=count, **given))
    return outputs.logits.to(torch.float32, copy=True)
