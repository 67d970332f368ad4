"""Diverse beam search: groups of beams, with a penalty on tokens that earlier groups chose (Vijayakumar et al., 2016).

https://arxiv.org/abs/1610.02424. Gives the same tokens as the version in transformers up to 4.49.
"""

from dataclasses import replace
from typing import Any, cast

import torch
from transformers import GenerationConfig

from parley.strategies.decoders.beams import (
    BeamHypotheses,
    Hypothesis,
    OnBeams,
    active_beams,
    end_tokens,
    kv_cache,
    sorted_hypotheses,
)
from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors


class Group:
    """One group: its running beams and its finished hypotheses."""

    def __init__(self, rows: torch.Tensor, config: GenerationConfig, vocabulary: int) -> None:
        self.rows = rows  # the indices of its beams in the batch
        self.finished = BeamHypotheses(len(rows), config.length_penalty)
        self.done = False
        self._end_tokens = end_tokens(config)
        self._vocabulary = vocabulary

    def step(self, ids: torch.Tensor, scores: torch.Tensor) -> tuple[list[int], list[int], list[float]]:
        """Chooses the next beams by `scores`, the log probabilities of all continuations, shape (beams, vocabulary).

        `ids` are the answers so far, shape (beams, tokens). Returns for each next beam the index of the beam that it
        continues, its new token and its log probability.
        """
        count = len(self.rows)
        best, indices = scores.view(-1).topk(max(2, 1 + len(self._end_tokens)) * count)
        length = ids.shape[1] + 1
        sources: list[int] = []
        tokens: list[int] = []
        sums: list[float] = []
        for rank, (score, index) in enumerate(zip(best.tolist(), indices.tolist(), strict=True)):
            source, token = divmod(index, self._vocabulary)
            if token not in self._end_tokens:
                sources, tokens, sums = [*sources, source], [*tokens, token], [*sums, score]
            elif rank < count:  # an end counts only among the best
                self.finished.add(ids[source].clone(), self.finished.score(score, length))
            if len(sources) == count:
                break
        self.done = self.finished.is_done(self.finished.score(best[0].item(), length))
        return sources, tokens, sums


@torch.no_grad()
def diverse_beams(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: Processors,
    stopping_criteria: Criteria,
    generation_config: GenerationConfig,
    beam_groups: int,
    diversity_penalty: float,
    on_beams: OnBeams,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, repeated, shape (beams, tokens); returns the best, (1, tokens).

    In each step the groups choose one after the other. The score of a token is lowered by `diversity_penalty` for each
    beam of an earlier group that chose it in this step. In the last call of `on_beams` the answers come first, the
    returned one before the others.
    """
    config, prompt_length = generation_config, input_ids.shape[1]
    num_beams, device = config.num_beams, input_ids.device
    inputs.pop("synced_gpus", None)
    outputs = model._prefill(input_ids, config, inputs)
    vocabulary = outputs.logits.shape[-1]
    rows = torch.arange(num_beams, device=device).view(beam_groups, -1)
    groups = [Group(each, config, vocabulary) for each in rows]
    sums = torch.full((num_beams,), -1e9, device=device)
    sums[rows[:, 0]] = 0.0
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        log_probabilities = outputs.logits[:, -1].float().log_softmax(-1)
        tokens = torch.full((num_beams,), int(cast(torch.Tensor, config._pad_token_tensor)), device=device)
        order = torch.arange(num_beams, device=device)
        for group in groups:
            beams = group.rows
            if group.done:
                sums[beams] = 0.0
                continue
            taken = torch.bincount(tokens[: beams[0]], minlength=vocabulary)
            scores = logits_processor(input_ids[beams], log_probabilities[beams] - diversity_penalty * taken)
            sources, chosen, values = group.step(input_ids[beams, prompt_length:], scores + sums[beams, None])
            order[beams] = beams[torch.tensor(sources, device=device)]
            tokens[beams] = torch.tensor(chosen, device=device)
            sums[beams] = torch.tensor(values, device=device)
        input_ids = torch.cat([input_ids[order], tokens[:, None]], dim=-1)
        kv_cache(inputs).reorder_cache(order)
        finished = [replace(h, group=i) for i, g in enumerate(groups) for h in g.finished.hypotheses]
        running = _running(groups, input_ids[:, prompt_length:], sums)
        if all(group.done for group in groups) or stopping_criteria(input_ids, None).all():
            answers = _answers(groups, running)
            on_beams(answers)
            return torch.cat([input_ids[:1, :prompt_length], answers[0].ids[None]], dim=-1)
        on_beams(sorted_hypotheses(finished, running))
        outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs))


def _running(groups: list[Group], ids: torch.Tensor, sums: torch.Tensor) -> list[Hypothesis]:
    """The hypotheses of the groups that are not done. `ids` are the answers so far, shape (beams, tokens)."""
    length = ids.shape[1]
    return [
        Hypothesis(ids[row], group.finished.score(float(sums[row]), length), finished=False, group=number)
        for number, group in enumerate(groups)
        if not group.done
        for row in group.rows[active_beams(sums[group.rows])].tolist()
    ]


def _answers(groups: list[Group], running: list[Hypothesis]) -> list[Hypothesis]:
    """All hypotheses at the end of the search, the answers first. Running beams compete with their present score."""
    for each in running:
        groups[each.group].finished.add(each.ids, each.score, finished=False)
    kept = [replace(h, group=i) for i, group in enumerate(groups) for h in group.finished.hypotheses]
    others = [each for each in running if not any(each.ids is one.ids for one in kept)]
    kept.reverse()  # of equal scores the newer one comes first
    return [*sorted(kept, key=lambda h: -h.score), *others]
