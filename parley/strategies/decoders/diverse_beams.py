"""Diverse beam search: groups of beams that are kept from saying the same (Vijayakumar et al., 2016).

https://arxiv.org/abs/1610.02424. The same tokens as the version that was built into transformers until 4.49.
"""

from typing import Any, cast

import torch
from transformers import GenerationConfig

from parley.strategies.decoders.beams import Finished, Hypothesis, OnBeams, alive, cache, end_tokens, ranked
from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors


class Group:
    """The running beams of one group and what it has finished."""

    def __init__(self, rows: torch.Tensor, config: GenerationConfig, vocabulary: int) -> None:
        self.rows = rows  # which rows of the batch are its own
        self.finished = Finished(len(rows), config.length_penalty)
        self.over = False
        self._ends = end_tokens(config)
        self._vocabulary = vocabulary

    def step(self, ids: torch.Tensor, scores: torch.Tensor) -> tuple[list[int], list[int], list[float]]:
        """Chooses from `scores`, shape (beams, vocabulary), the log probabilities of all continuations.

        `ids`: the answers so far, shape (beams, tokens). Returns, for each beam to go on with, the beam that it
        continues, its token and its log probability.
        """
        count = len(self.rows)
        best, places = scores.view(-1).topk(max(2, 1 + len(self._ends)) * count)
        length = ids.shape[1] + 1
        sources: list[int] = []
        tokens: list[int] = []
        sums: list[float] = []
        for rank, (score, place) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
            source, token = divmod(place, self._vocabulary)
            if token not in self._ends:
                sources, tokens, sums = [*sources, source], [*tokens, token], [*sums, score]
            elif rank < count:  # an end counts only among the best
                self.finished.add(ids[source].clone(), self.finished.score(score, length))
            if len(sources) == count:
                break
        self.over = self.finished.full_of_better_than(self.finished.score(best[0].item(), length))
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

    The groups choose one after the other; a token loses `diversity_penalty` for each beam of an earlier group that
    has just taken it.
    """
    config, prompt = generation_config, input_ids.shape[1]
    beams, device = config.num_beams, input_ids.device
    inputs.pop("synced_gpus", None)
    outputs = model._prefill(input_ids, config, inputs)
    vocabulary = outputs.logits.shape[-1]
    rows = torch.arange(beams, device=device).view(beam_groups, -1)
    groups = [Group(each, config, vocabulary) for each in rows]
    sums = torch.full((beams,), -1e9, device=device)
    sums[rows[:, 0]] = 0.0
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        log_probabilities = outputs.logits[:, -1].float().log_softmax(-1)
        tokens = torch.full((beams,), int(cast(torch.Tensor, config._pad_token_tensor)), device=device)
        order = torch.arange(beams, device=device)
        for group in groups:
            own = group.rows
            if group.over:
                sums[own] = 0.0
                continue
            taken = torch.bincount(tokens[: own[0]], minlength=vocabulary)
            scores = logits_processor(input_ids[own], log_probabilities[own] - diversity_penalty * taken)
            sources, chosen, values = group.step(input_ids[own, prompt:], scores + sums[own, None])
            order[own] = own[torch.tensor(sources, device=device)]
            tokens[own] = torch.tensor(chosen, device=device)
            sums[own] = torch.tensor(values, device=device)
        input_ids = torch.cat([input_ids[order], tokens[:, None]], dim=-1)
        cache(inputs).reorder_cache(order)
        found = ranked(
            [h for g in groups for h in g.finished.hypotheses], _running(groups, input_ids[:, prompt:], sums)
        )
        on_beams(found)
        if all(group.over for group in groups) or stopping_criteria(input_ids, None).all():
            return torch.cat([input_ids[:1, :prompt], _best(groups, input_ids[:, prompt:], sums)[None]], dim=-1)
        outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs))


def _running(groups: list[Group], ids: torch.Tensor, sums: torch.Tensor) -> list[Hypothesis]:
    """What the groups that go on consider. `ids`: the answers so far, shape (beams, tokens)."""
    length = ids.shape[1]
    return [
        Hypothesis(ids[row], group.finished.score(float(sums[row]), length), finished=False)
        for group in groups
        if not group.over
        for row in group.rows[alive(sums[group.rows])].tolist()
    ]


def _best(groups: list[Group], ids: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """The best answer, shape (tokens,), when the search is over; those that still run compete as they are."""
    for group in groups:
        for row in group.rows.tolist() if not group.over else ():
            group.finished.add(ids[row], group.finished.score(float(sums[row]), ids.shape[1]))
    everything = [h for group in groups for h in group.finished.hypotheses]
    return max(reversed(everything), key=lambda h: h.score).ids
