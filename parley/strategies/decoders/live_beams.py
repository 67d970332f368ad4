"""Beam search and beam-search sampling as transformers has them, watched while they run.

https://huggingface.co/docs/transformers/generation_strategies#beam-search. The search itself is the library's: a
delegate of the model hands over what each step considered, and changes nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin

from parley.strategies.decoders.beams import Hypothesis, OnBeams, alive, ranked
from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors


def live_beams(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: Processors,
    stopping_criteria: Criteria,
    generation_config: GenerationConfig,
    on_beams: OnBeams,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, repeated, shape (beams, tokens); returns the best, (1, tokens).

    Its last `on_beams` has the returned answer first.
    """
    watched = _Watched(model, on_beams, input_ids.shape[1])
    search: Callable[..., torch.Tensor] = GenerationMixin._beam_search
    return search(watched, input_ids, logits_processor, stopping_criteria, generation_config, **inputs)


class _Watched:
    """The model for one beam search; all but the update of the finished beams is the model's own."""

    def __init__(self, model: CausalLM, on_beams: OnBeams, prompt: int) -> None:
        self._model, self._on_beams, self._prompt = model, on_beams, prompt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)

    def _update_finished_beams(self, **step: Any) -> tuple[torch.Tensor, ...]:
        """As the model's; `step` has tensors of shape (1, candidates, …)."""
        updated = self._model._update_finished_beams(**step)
        sequences, scores, sources, over = (tensor[0] for tensor in updated)
        finished = [
            Hypothesis(sequences[i, self._prompt :][sources[i] >= 0], float(scores[i]), finished=True)
            for i in over.nonzero()[:, 0].tolist()
        ]
        end = step["cur_len"] + 1
        sums = step["topk_log_probs"][0].masked_fill(step["next_token_hits_stopping_criteria"][0], -1e9)
        best = sums.topk(step["num_beams"]).indices
        length = (end - self._prompt) ** step["length_penalty"]
        candidates = step["topk_running_sequences"][0]
        running = [
            Hypothesis(candidates[i, self._prompt : end], float(sums[i]) / length, finished=False)
            for i in best[alive(sums[best])].tolist()
        ]
        self._on_beams(ranked(finished, running))
        return updated
