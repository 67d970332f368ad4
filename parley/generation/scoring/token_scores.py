"""Why each token of an answer was chosen: its probability before and after the strategy's processors, and the draw.

Nothing is kept while an answer streams. The exact tokens are read once more when somebody asks (teacher forcing), in
the mode in which they were decoded.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from parley.events import SHOWN, Candidate, TokenScore
from parley.generation.detokenizer import IncrementalDetokenizer
from parley.generation.loaded_model import LoadedModel
from parley.strategies.decoders.dola import Contrast
from parley.strategies.decoders.teacher_forcing import Step
from parley.strategies.processors.answer_form import AnswerForm
from parley.strategies.processors.order import setting_of


def control_ids(loaded: LoadedModel) -> set[int]:
    """The tokens of the chat template that nobody can type."""
    tokenizer = loaded.tokenizer
    return {*tokenizer.all_special_ids, *map(tokenizer.convert_tokens_to_ids, tokenizer.chat_control_tokens)}


class Scorer:
    """Makes a `TokenScore` of each step of `teacher_forcing`."""

    def __init__(
        self,
        loaded: LoadedModel,
        prompt_ids: Sequence[int],
        take: Callable[[TokenScore], None],
        also: Sequence[Collection[int]] = (),
        *,
        shown: int = SHOWN,
    ) -> None:
        """Takes `shown` candidates, and at each step the tokens of `also`."""
        self._tokenizer, self._take, self._also, self._shown = loaded.tokenizer, take, iter(also), shown
        self._control = control_ids(loaded)
        self._detokenizer = IncrementalDetokenizer(loaded.tokenizer, prompt_ids, skip_special_tokens=False)
        self.chain: tuple[str, ...] = ()  # the settings whose processors ran, in their order

    def begin(self, token: int) -> None:
        """Takes the first token of all, which nothing says anything of."""
        text, nothing = self._tokenizer.decode([token]), math.nan
        self._take(TokenScore(token, text, nothing, 0, nothing, 0, nothing, (), control=token in self._control))

    def __call__(self, step: Step) -> None:
        """Scores one token."""
        self.chain = tuple(setting_of(processor) for processor, _ in step.chain)
        own, after = step.logits.log_softmax(-1), step.scores.log_softmax(-1)
        ids = self._candidates(step, own, after)
        chosen, contrast = own[step.token], next((each for each, _ in step.chain if isinstance(each, Contrast)), None)
        self._take(
            TokenScore(
                id=step.token,
                text=self._detokenizer.step(step.token),
                logprob=float(chosen),
                rank=int((own > chosen).sum()) + 1,
                after=float(after[step.token]),
                after_rank=int((after > after[step.token]).sum()) + 1,
                entropy=float(-(own.exp() * own.clamp_min(torch.finfo(own.dtype).min)).sum()),
                candidates=tuple(self._described(step, ids, own, after, contrast)),
                control=step.token in self._control,
                form_removed=next((each.taken for each, _ in step.chain if isinstance(each, AnswerForm)), None),
                early_layer=contrast.layer if contrast else None,
            )
        )

    def _described(
        self, step: Step, ids: torch.Tensor, own: torch.Tensor, after: torch.Tensor, contrast: Contrast | None
    ) -> Iterator[Candidate]:
        nothing: list[Any] = [None] * len(ids)
        noise = step.noise(ids)
        quotients = nothing if noise is None else (after[ids].exp() / noise).tolist()
        early = nothing if contrast is None or contrast.early is None else contrast.early.log_softmax(-1)[ids].tolist()
        noises = nothing if noise is None else noise.tolist()
        columns = own[ids].tolist(), after[ids].tolist(), _removed_by(step, ids), quotients, noises, early
        for id, *row in zip(ids.tolist(), *columns, strict=True):
            yield Candidate(id, self._tokenizer.decode([id]), *row)

    def _candidates(self, step: Step, own: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The best tokens by the model, the best after the processors, the one that the draw gives, and the chosen."""
        shown = min(self._shown, len(own))
        kept = after.topk(shown // 2).indices
        kept = kept[after[kept] > -torch.inf]
        best = [own.topk(shown).indices, kept, torch.tensor([step.token, step.winner])]
        best.append(torch.tensor(list(next(self._also, ())), dtype=torch.long))
        ids = torch.cat(best).unique()
        return ids[own[ids].argsort(descending=True)]


def _removed_by(step: Step, ids: torch.Tensor) -> list[str]:
    """For each token the setting that removed it; empty where it was kept."""
    removed = [""] * len(ids)
    for processor, scores in step.chain:
        for index, kept in enumerate((scores[ids] > -torch.inf).tolist()):
            if not kept and not removed[index]:
                removed[index] = setting_of(processor)
    return removed
