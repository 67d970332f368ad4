"""Constrained beam search: the answer has to contain certain phrases (Post and Vilar, 2018).

https://arxiv.org/abs/1804.06609. Gives the same tokens as the version in transformers up to 4.49, with one difference:
here only the answer counts. There a phrase in the prompt already fulfilled the constraint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig

from parley.strategies.decoders.beams import BeamHypotheses, Hypothesis, OnBeams, active_beams, end_tokens, kv_cache
from parley.strategies.decoders.causal_lm import CausalLM, Criteria, Processors
from parley.strategies.decoders.observed_beam_search import observed_beam_search

Phrase = tuple[int, ...]  # the tokens of one word or phrase that must occur, at least one


@dataclass(frozen=True)
class Progress:
    """Which phrases one answer contains already. It works on one phrase at a time."""

    pending: tuple[Phrase, ...]
    current: Phrase = ()
    position: int = 0  # how many tokens of `current` the answer ends with
    done: int = 0  # how many phrases are complete

    @property
    def complete(self) -> bool:
        """Whether the answer contains all phrases."""
        return not self.pending and not self.current

    @property
    def next_tokens(self) -> list[int]:
        """The tokens that advance a phrase by one token."""
        return [self.current[self.position]] if self.current else [phrase[0] for phrase in self.pending]

    def bank(self, max_length: int) -> int:
        """The amount of progress. Beams compete within their bank. `max_length` is that of all phrases, in tokens."""
        return self.done * max_length + (max_length - (len(self.current) - self.position) if self.current else 0)

    def add(self, token: int) -> "Progress":
        """The progress after one more token. A token that does not continue the current phrase interrupts it."""
        if self.current:
            if token != self.current[self.position]:
                return Progress((*self.pending, self.current), done=self.done)
            return self._complete_if_reached(replace(self, position=self.position + 1))
        for i, phrase in enumerate(self.pending):
            if token == phrase[0]:
                rest = self.pending[:i] + self.pending[i + 1 :]
                return self._complete_if_reached(Progress(rest, phrase, 1, self.done))
        return self

    def after(self, tokens: Sequence[int]) -> "Progress":
        """The progress after these tokens."""
        progress = self
        for token in tokens:
            progress = progress.add(token)
        return progress

    @staticmethod
    def _complete_if_reached(progress: "Progress") -> "Progress":
        if progress.position < len(progress.current):
            return progress
        return Progress(progress.pending, done=progress.done + 1)


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

    An answer that lacks one of the `phrases` cannot finish. At the token limit unfinished answers compete with their
    present score. In the last call of `on_beams` the returned answer comes first, and the next best follow. Without
    phrases this is a plain beam search.
    """
    if not phrases:
        return observed_beam_search(
            model, input_ids, logits_processor, stopping_criteria, generation_config, on_beams, **inputs
        )
    config, prompt_length, device = generation_config, input_ids.shape[1], input_ids.device
    search = Search(config, phrases)
    sums = torch.full((config.num_beams,), -1e9, device=device)
    sums[0] = 0.0
    inputs.pop("synced_gpus", None)
    outputs = model._prefill(input_ids, config, inputs)
    while True:
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        scores = logits_processor(input_ids, outputs.logits[:, -1].float().log_softmax(-1)) + sums[:, None]
        chosen = search.step(input_ids[:, prompt_length:], scores)
        order = torch.tensor([c.source for c in chosen], device=device)
        tokens = torch.tensor([c.token for c in chosen], device=device)
        sums = torch.tensor([c.score for c in chosen], device=device)
        input_ids = torch.cat([input_ids[order], tokens[:, None]], dim=-1)
        kv_cache(inputs).reorder_cache(order)
        at_end = search.done or bool(stopping_criteria(input_ids, None).all())
        found = (search.at_end if at_end else search.found)(input_ids[:, prompt_length:], sums)
        on_beams(found)
        if at_end:
            return torch.cat([input_ids[:1, :prompt_length], found[0].ids[None]], dim=-1)
        outputs = model(**model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **inputs))


class Search:
    """The state of the search: the finished answers and the phrases."""

    def __init__(self, config: GenerationConfig, phrases: Sequence[Phrase]) -> None:
        self.finished = BeamHypotheses(config.num_beams, config.length_penalty)
        self.done = False
        self._num_beams = config.num_beams
        self._end_tokens = end_tokens(config)
        self._start = Progress(tuple(phrases))
        self._max_phrase_length = max(map(len, phrases))

    def step(self, ids: torch.Tensor, scores: torch.Tensor) -> list[Continuation]:
        """The next beams.

        `ids` are the answers so far, shape (beams, tokens). `scores` are the log probabilities of all continuations,
        shape (beams, vocabulary).
        """
        vocabulary, length = scores.shape[1], ids.shape[1] + 1
        answers = ids.tolist()
        before = [self._start.after(answer) for answer in answers]
        best, indices = scores.view(-1).topk(max(2, 1 + len(self._end_tokens)) * self._num_beams)
        likely: list[Continuation] = []
        for rank, (score, index) in enumerate(zip(best.tolist(), indices.tolist(), strict=True)):
            source, token = divmod(index, vocabulary)
            if token not in self._end_tokens:
                likely.append(Continuation(source, token, score, before[source].add(token)))
            elif rank < self._num_beams and before[source].complete:  # an end counts only among the best
                self.finished.add(ids[source].clone(), self.finished.score(score, length))
            if len(likely) == self._num_beams:
                break
        chosen = self._with_progress(likely, before, answers, scores)
        self.done = self.finished.is_done(self.finished.score(best[0].item(), length))
        return chosen

    def found(self, ids: torch.Tensor, sums: torch.Tensor) -> list[Hypothesis]:
        """All hypotheses: the finished ones, then the running ones, those with the most progress first."""
        answers = ids.tolist()
        running = [
            Hypothesis(ids[row], self.finished.score(float(sums[row]), ids.shape[1]), finished=False)
            for row in sorted(
                active_beams(sums).tolist(),
                key=lambda row: (self._start.after(answers[row]).bank(self._max_phrase_length), float(sums[row])),
                reverse=True,
            )
        ]
        return [*reversed(self.finished.hypotheses), *running]

    def at_end(self, ids: torch.Tensor, sums: torch.Tensor) -> list[Hypothesis]:
        """All hypotheses at the end of the search, the answer first. Running beams compete with their present score.

        Among these only the beams that contain all phrases compete, if there are any.
        """
        found = self.found(ids, sums)
        if self.done:
            return found
        complete = [h for h in found if h.finished or self._start.after(h.ids.tolist()).complete] or found
        others = [h for h in found if not any(h is each for each in complete)]
        return [*sorted(complete, key=lambda h: (-h.score, h.finished)), *others]

    def _with_progress(
        self,
        likely: Sequence[Continuation],
        before: Sequence[Progress],
        ids: Sequence[list[int]],
        scores: torch.Tensor,
    ) -> list[Continuation]:
        """The next beams, from the likely continuations and those that advance a phrase.

        Takes the best of each bank, then the second best of each, and so on.
        """
        candidates = list(likely)
        known = {(*ids[c.source], c.token) for c in likely}
        for source, progress in enumerate(before):
            for token in progress.next_tokens:
                if (answer := (*ids[source], token)) not in known:
                    known.add(answer)
                    score = scores[source, token].item()
                    candidates.append(Continuation(source, token, score, progress.add(token)))
        if len(candidates) == len(likely):
            return candidates
        banks = [c.progress.bank(self._max_phrase_length) for c in candidates]
        # A bank counts as 100 nats, so a very unlikely candidate comes after one of a lower bank.
        order = sorted(range(len(candidates)), key=lambda i: -(100 * banks[i] + candidates[i].score))
        ranks: dict[int, int] = {}  # of each candidate within its bank
        for place, i in enumerate(order):
            previous = order[place - 1]
            same_bank = place > 0 and banks[previous] == banks[i]
            ranks[i] = ranks[previous] + 1 if same_bank else 0
        return [candidates[i] for i in sorted(order, key=ranks.__getitem__)[: self._num_beams]]
