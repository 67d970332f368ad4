"""Greedy search and sampling, token for token as transformers has them, and sooner: what was said before is guessed.

Each token is drawn by itself and in its turn, so neither the distribution nor, with a seed, the text depends on the
guesses. That is stricter than speculative sampling (Leviathan et al., 2022, https://arxiv.org/abs/2211.17192), which
keeps the distribution only; with guesses that are certain of themselves it accepts as many.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import Cache, GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from parley.strategies.decoders.guidance import take_guidance
from parley.strategies.decoders.prompt_lookup import PromptLookup
from parley.strategies.decoders.sampling import Sampler


@torch.no_grad()
def decode_loop(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    on_token: Callable[[torch.Tensor], None],
    on_draft: Callable[[int, int], None],
    lookup: bool,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, shape (1, tokens); returns prompt and answer, shape (1, tokens).

    Only for models whose memory of the text is a cache of keys and values. With `lookup` guesses are made, for which
    tokens must be croppable from that cache, and the processors must not remember what they were asked before.
    `on_draft` takes how many tokens a step guessed, and how many were right.
    """
    guided, processors = None, logits_processor
    if hasattr(model, "prefill_beside"):
        guided, processors = take_guidance(logits_processor, input_ids)
    choose = Sampler(processors, generation_config.do_sample)
    guesses, guessed = PromptLookup(input_ids[0].tolist(), getattr(model, "free_drafts", 0)), []
    inputs = {name: value for name, value in inputs.items() if name != "synced_gpus"}
    outputs = model._prefill(input_ids, generation_config, inputs)
    cache = outputs.past_key_values
    logits = outputs.logits[:, -1:].to(torch.float32, copy=True)
    if guided:
        logits = torch.cat([logits, model.prefill_beside(cache, guided.away)])  # (2, 1, vocabulary)
    while True:
        logits = logits[:, -len(guessed) - 1 :]  # (sequences, guesses + 1, vocabulary)
        right = 0
        for position in range(len(guessed) + 1):
            token = choose(input_ids, guided(logits[:, position]) if guided else logits[:, position])
            input_ids = torch.cat([input_ids, token], dim=-1)
            on_token(token.cpu())
            over = any(bool(each(input_ids, None).all()) for each in stopping_criteria)
            as_guessed = guessed[position : position + 1] == [int(token)]
            right += as_guessed
            guesses.take(int(token))
            if over or not as_guessed:
                break
        if guessed:
            on_draft(len(guessed), right)
            guesses.learn(len(guessed), right)
            cache.crop(right - len(guessed))
        if over:
            return input_ids
        guessed = guesses.next(generation_config.max_length - input_ids.shape[1] - 1 if lookup else 0)
        ahead = torch.cat([input_ids, input_ids.new_tensor([guessed])], dim=-1)
        ahead = ahead.expand(2, -1) if guided else ahead
        logits = _next_logits(model, cache, ahead, len(guessed) + 1)


def _next_logits(model: PreTrainedModel, cache: Cache, input_ids: torch.Tensor, count: int) -> torch.Tensor:
    """The logits after each of the last `count` tokens, float32 and to be changed freely."""
    if hasattr(model, "next_logits"):
        return model.next_logits(cache, input_ids[:, -count:])
    given = {"past_key_values": cache, "attention_mask": torch.ones_like(input_ids), "use_cache": True}
    outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=count, **given))
    return outputs.logits.to(torch.float32, copy=True)
