"""Constrained beam search: beams that are led to say certain words (Post and Vilar, 2018).

https://arxiv.org/abs/1804.06609. The same tokens as the version that was built into transformers until 4.49, but that
words in the question do not count: there a question that names the word already met the constraint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig

from parley.strategies.decoders.beams import Finished, Hypothesis, OnBeams, alive, cache, end_tokens
from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors
from parley.strategies.decoders.live_beams import live_beams

Phrase = tuple[int, ...]  # the tokens of one word or phrase that must occur, at least one


@dataclass(frozen=True)
class Progress:
    """How far one answer has come with the phrases; one is worked on at a time."""

    waiting: tuple[Phrase, ...]
    begun: Phrase = ()
    step: int = 0  # how many tokens of `begun` are there
    done: int = 0

    @property
    def complete(self) -> bool:
        """Whether all phrases occur."""
        return not self.waiting and not self.begun

    @property
    def next_tokens(self) -> list[int]:
        """The tokens that bring it one step on."""
        return [self.begun[self.step]] if self.begun else [phrase[0] for phrase in self.waiting]

    def bank(self, longest: int) -> int:
        """How much is done; beams are compared within their bank. `longest`: the tokens of the longest phrase."""
        return self.done * longest + (longest - (len(self.begun) - self.step) if self.begun else 0)

    def add(self, token: int) -> "Progress":
        """The progress after one more token, which may break off what was begun."""
        if self.begun:
            if token != self.begun[self.step]:
                return Progress((*self.waiting, self.begun), done=self.done)
            return self._stepped(replace(self, step=self.step + 1))
        for i, phrase in enumerate(self.waiting):
            if token == phrase[0]:
                rest = self.waiting[:i] + self.waiting[i + 1 :]
                return self._stepped(Progress(rest, phrase, 1, self.done))
        return self

    def after(self, tokens: Sequence[int]) -> "Progress":
        """The progress after these tokens."""
        progress = self
        for token in tokens:
            progress = progress.add(token)
        return progress

    @staticmethod
    def _stepped(progress: "Progress") -> "Progress":
        if progress.step < len(progress.begun):
            return progress
        return Progress(progress.waiting, done=progress.done + 1)


@dataclass(frozen=True)
class Continuation:
    """One beam with one more token."""

    source: int
    token: int
    score: float  # log probability of the whole answer
    progress: Progress


@torch.no_grad()
def constrained_beams(
    model: CausalLM,
    input_ids: torch.Tensor,
    logits_processor: Processors,
    stopping_criteria: Criteria,
    generation_config: GenerationConfig,
    phrases: Sequence[Phrase],
    on_beams: OnBeams,
    **inputs: Any,
) -> torch.Tensor:
    """For `generate(custom_generate=…)`: one prompt, repeated, shape (beams, tokens); returns the best, (1, tokens).

    An answer that lacks one of the `phrases` does not finish; only when none has finished at the end, because the
    room for the answer was too small, the best of those is returned. Without phrases it is a plain beam search.
    """
    if not phrases:
        return live_beams(model, input_ids, logits_processor, stopping_criteria, generation_config, on_beams, **inputs)
    config, prompt, device = generation_config, input_ids.shape[1], input_ids.device
    search = Search(config, phrases)
    sums = torch.full((config.num_beams,), -1e9, device=device)
    sums[0] = 0.0
    inputs.pop("synced_gpus", None)
    outputs = model._prefill(input_ids, config, inputs)
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        scores = logits_processor(input_ids, outputs.logits[:, -1].float().log_softmax(-1)) + sums[:, None]
        chosen = search.step(input_ids[:, prompt:], scores)
        order = torch.tensor([c.source for c in chosen], device=device)
        tokens = torch.tensor([c.token for c in chosen], device=device)
        sums = torch.tensor([c.score for c in chosen], device=device)
        input_ids = torch.cat([input_ids[order], tokens[:, None]], dim=-1)
        cache(inputs).reorder_cache(order)
        on_beams(search.found(input_ids[:, prompt:], sums))
        if search.over or stopping_criteria(input_ids, None).all():
            return torch.cat([input_ids[:1, :prompt], search.best(input_ids[:, prompt:], sums)[None]], dim=-1)
        outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs))


class Search:
    """What is kept between the steps: the finished answers and the phrases."""

    def __init__(self, config: GenerationConfig, phrases: Sequence[Phrase]) -> None:
        self.finished = Finished(config.num_beams, config.length_penalty)
        self.over = False
        self._count = config.num_beams
        self._ends = end_tokens(config)
        self._start = Progress(tuple(phrases))
        self._longest = max(map(len, phrases))

    def step(self, ids: torch.Tensor, scores: torch.Tensor) -> list[Continuation]:
        """The beams to go on with.

        `ids`: the answers so far, shape (beams, tokens). `scores`: the log probabilities of all continuations, shape
        (beams, vocabulary).
        """
        vocabulary, length = scores.shape[1], ids.shape[1] + 1
        answers = ids.tolist()
        before = [self._start.after(answer) for answer in answers]
        best, places = scores.view(-1).topk(max(2, 1 + len(self._ends)) * self._count)
        likely: list[Continuation] = []
        for rank, (score, place) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
            source, token = divmod(place, vocabulary)
            if token not in self._ends:
                likely.append(Continuation(source, token, score, before[source].add(token)))
            elif rank < self._count and before[source].complete:  # an end counts only among the best
                self.finished.add(ids[source].clone(), self.finished.score(score, length))
            if len(likely) == self._count:
                break
        chosen = self._led(likely, before, answers, scores)
        self.over = self.finished.full_of_better_than(self.finished.score(best[0].item(), length))
        return chosen

    def found(self, ids: torch.Tensor, sums: torch.Tensor) -> list[Hypothesis]:
        """All that is considered now: the finished ones, then the running ones that have come farthest."""
        answers = ids.tolist()
        running = [
            Hypothesis(ids[row], self.finished.score(float(sums[row]), ids.shape[1]), finished=False)
            for row in sorted(
                alive(sums).tolist(),
                key=lambda row: (self._start.after(answers[row]).bank(self._longest), float(sums[row])),
                reverse=True,
            )
        ]
        return [*reversed(self.finished.hypotheses), *running]

    def best(self, ids: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        """The best answer, shape (tokens,), when the search is over; those that still run compete as they are."""
        if not self.over:
            complete = [row for row, tokens in enumerate(ids.tolist()) if self._start.after(tokens).complete]
            for row in complete or range(self._count):
                self.finished.add(ids[row], self.finished.score(float(sums[row]), ids.shape[1]))
        return self.finished.hypotheses[-1].ids

    def _led(
        self,
        likely: Sequence[Continuation],
        before: Sequence[Progress],
        ids: Sequence[list[int]],
        scores: torch.Tensor,
    ) -> list[Continuation]:
        """Of the likely continuations and those that bring a phrase on, the best of each bank in turn."""
        everything = list(likely)
        known = {(*ids[c.source], c.token) for c in likely}
        for source, progress in enumerate(before):
            for token in progress.next_tokens:
                if (answer := (*ids[source], token)) not in known:
                    known.add(answer)
                    score = scores[source, token].item()
                    everything.append(Continuation(source, token, score, progress.add(token)))
        if len(everything) == len(likely):
            return everything
        banks = [c.progress.bank(self._longest) for c in everything]
        # A bank is worth 100 nats: one that is very unlikely stands behind a lower one.
        order = sorted(range(len(everything)), key=lambda i: -(100 * banks[i] + everything[i].score))
        places: dict[int, int] = {}
        for place, i in enumerate(order):
            previous = order[place - 1]
            same = place > 0 and banks[previous] == banks[i]
            places[i] = places[previous] + 1 if same else 0
        return [everything[i] for i in sorted(order, key=places.__getitem__)[: self._count]]
