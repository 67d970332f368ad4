"""Contrastive search: chooses, among the likely tokens, one that differs from the text so far (Su et al., 2022).

https://arxiv.org/abs/2202.06417. Gives the same tokens as the version in transformers up to 4.49.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers import GenerationConfig

from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors, next_inputs


@torch.no_grad()
def contrastive(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: Processors,
    stopping_criteria: Criteria,
    generation_config: GenerationConfig,
    penalty_alpha: float,
    candidates: int,
    on_token: Callable[[torch.Tensor], None],
    on_candidates: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None] | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, shape (1, tokens); returns prompt and answer, shape (1, tokens).

    One forward pass tries the most likely `candidates` together. The score of a candidate is its probability times
    1 - `penalty_alpha`, minus the largest cosine similarity of its hidden state to the earlier ones times
    `penalty_alpha`. `on_candidates` takes the tokens, these similarities and the scores, of shape (candidates,).
    """
    alpha, k = penalty_alpha, candidates
    inputs = {name: value for name, value in inputs.items() if name != "synced_gpus"} | {"output_hidden_states": True}
    outputs = model._prefill(input_ids, generation_config, inputs)
    cache = outputs.past_key_values
    context_states = F.normalize(outputs.hidden_states[-1], dim=-1)  # (1, tokens, width)
    logits = outputs.logits[:, -1].float()
    while True:
        probabilities, ids = logits_processor(input_ids, logits).softmax(-1).topk(k)  # (1, k) each
        cache.batch_repeat_interleave(k)
        tried = torch.cat([input_ids.expand(k, -1), ids.view(k, 1)], dim=-1)
        given = next_inputs(inputs, cache, tried)
        outputs = model(**model.prepare_inputs_for_generation(tried, next_sequence_length=1, **given))
        states = F.normalize(outputs.hidden_states[-1], dim=-1)
        candidate_states = states[:, -1:]  # (k, 1, width)
        if states.shape[1] > 1:  # the model has read the whole text again
            context_states = states[:1, :-1]
        similarities = (candidate_states @ context_states.transpose(1, 2)).amax(dim=(1, 2))  # (k,)
        scores = (1 - alpha) * probabilities[0] - alpha * similarities
        scores = scores.masked_fill(probabilities[0] == 0, -torch.inf)  # not one that was removed
        best = scores.argmax().view(1)
        if on_candidates:
            on_candidates(ids[0], similarities, scores)
        cache.batch_select_indices(best)
        context_states = torch.cat([context_states, candidate_states[best]], dim=1)
        logits = outputs.logits[best, -1].float()
        input_ids = torch.cat([input_ids, ids[:, best]], dim=-1)
        on_token(ids[:, best].cpu())
        if stopping_criteria(input_ids, None).all():
            return input_ids
