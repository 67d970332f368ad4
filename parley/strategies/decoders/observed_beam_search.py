"""Beam search and beam-search sampling by transformers, with the hypotheses of each step reported.

https://huggingface.co/docs/transformers/generation_strategies#beam-search. A wrapper of the model reports the
hypotheses and does not change the search.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin

from parley.strategies.decoders.beams import Hypothesis, OnBeams, active_beams, sorted_hypotheses
from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors


def observed_beam_search(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: Processors,
    stopping_criteria: Criteria,
    generation_config: GenerationConfig,
    on_beams: OnBeams,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, repeated, shape (beams, tokens); returns the best, (1, tokens).

    In the last call of `on_beams` the finished answers come first, the returned one before the others.
    """
    observer = BeamObserver(model, on_beams, input_ids.shape[1])
    search: Callable[..., torch.Tensor] = GenerationMixin._beam_search
    return search(observer, input_ids, logits_processor, stopping_criteria, generation_config, **inputs)


class BeamObserver:
    """The model for one beam search. Reports the hypotheses of each step, at its end."""

    def __init__(self, model: CausalLM, on_beams: OnBeams, prompt_length: int) -> None:
        self._model, self._on_beams, self._prompt_length = model, on_beams, prompt_length
        self._finished, self._running = list[Hypothesis](), list[Hypothesis]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One forward pass of the model."""
        return self._model(*args, **kwargs)

    def _update_finished_beams(self, **step: Any) -> tuple[torch.Tensor, ...]:
        """As the model's; the tensors in `step` have the shape (1, candidates, …)."""
        updated = self._model._update_finished_beams(**step)
        sequences, scores, sources, is_finished = (tensor[0] for tensor in updated)
        self._finished = [
            Hypothesis(sequences[i, self._prompt_length :][sources[i] >= 0], float(scores[i]), finished=True)
            for i in is_finished.nonzero()[:, 0].tolist()
        ]
        end = step["cur_len"] + 1
        sums = step["topk_log_probs"][0].masked_fill(step["next_token_hits_stopping_criteria"][0], -1e9)
        best = sums.topk(step["num_beams"]).indices
        length = (end - self._prompt_length) ** step["length_penalty"]
        candidates = step["topk_running_sequences"][0]
        self._running = [
            Hypothesis(candidates[i, self._prompt_length : end], float(sums[i]) / length, finished=False)
            for i in best[active_beams(sums[best])].tolist()
        ]
        return updated

    def _beam_search_has_unfinished_sequences(self, *state: Any) -> torch.Tensor:
        """As the model's."""
        goes_on = self._model._beam_search_has_unfinished_sequences(*state)
        everything = sorted_hypotheses(self._finished, self._running)
        self._on_beams(everything if bool(goes_on) else [*self._finished, *self._running])
        return goes_on
