"""How a search came to its answer: it runs again, and its decoder tells a recorder of each step."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from parley.events import BeamNode, Candidate, Choices, SpeculativePass, TokenScore
from parley.settings import OPTIONS
from parley.strategies.decoders.beams import Hypothesis

MAX_GROUPS = OPTIONS["beam_groups"].high


class BeamRecorder:
    """Makes a tree of the hypotheses of a beam search."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._steps = list[list[tuple[bytes, BeamNode]]]()  # with the tokens up to each node
        self._running = dict[bytes, int]()  # the place in the last step, by the tokens
        self._finished = set[bytes]()

    def __call__(self, hypotheses: Sequence[Hypothesis]) -> None:
        """Takes all hypotheses after a step, best first. Those that were finished before are known."""
        step, running = list[tuple[bytes, BeamNode]](), dict[bytes, int]()
        length = max((len(each.ids) for each in hypotheses if not each.finished), default=len(self._steps) + 1)
        for each in hypotheses:
            key = _key(each.ids, each.group)
            if each.finished and key in self._finished:
                continue
            if each.finished:
                self._finished.add(key)
            else:
                running[key] = len(step)
            ended = each.finished and len(each.ids) < length  # its end token is not among the tokens
            before = key if ended else _key(each.ids[:-1], each.group)
            token = -1 if ended or not len(each.ids) else int(each.ids[-1])
            text = self._tokenizer.decode([token]) if token >= 0 else ""
            parent = self._running.get(before, -1)
            step.append((key, BeamNode(token, text, parent, each.score, each.finished, each.group, chosen=False)))
        self._steps.append(step)
        self._running = running

    def told(self, choices: Choices, ids: Sequence[int]) -> Choices:
        """What is known of this answer, with the tree and, at each token, the rivals of the answer."""
        answer = torch.tensor(ids)
        ends = {_key(part, group): group for part in (answer, answer[:-1]) for group in range(MAX_GROUPS)}
        ended = [(node.score, ends[key]) for step in self._steps for key, node in step if key in ends]
        group = max(ended, default=(0.0, 0))[1]  # two groups may come to the same text
        own = {_key(answer[: length + 1], group) for length in range(len(ids))}
        beams = tuple(tuple(replace(node, chosen=key in own) for key, node in step) for step in self._steps)
        rivals = [*beams[: len(ids)], *[()] * (len(ids) - len(beams))]
        scores = (replace(each, rivals=nodes) for each, nodes in zip(choices.answer, rivals, strict=True))
        return replace(choices, beams=beams, answer=tuple(scores))


def _key(ids: torch.Tensor, group: int) -> bytes:
    return bytes([group]) + ids.cpu().numpy().tobytes()


class TermRecorder:
    """Keeps the two terms of contrastive search for each token that it tried."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tried = list[dict[int, tuple[float, float]]]()  # by token: its similarity and what it is chosen by

    def __call__(self, tokens: torch.Tensor, similarities: torch.Tensor, values: torch.Tensor) -> None:
        """Takes the tokens that were tried at a step, all of shape (tried,)."""
        terms = zip(similarities.tolist(), values.tolist(), strict=True)
        self.tried.append(dict(zip(tokens.tolist(), terms, strict=True)))

    def told(self, choices: Choices, ids: Sequence[int]) -> Choices:
        """What is known of this answer, with the two terms of each candidate that was tried."""

        def with_terms(score: TokenScore, terms: dict[int, tuple[float, float]]) -> TokenScore:
            def told(each: Candidate) -> Candidate:
                similarity, value = terms.get(each.id, (None, None))
                return replace(each, similarity=similarity, value=value)

            return replace(score, candidates=tuple(map(told, score.candidates)))

        scores = map(with_terms, choices.answer, self.tried)
        return replace(choices, answer=tuple(scores))


class PassRecorder:
    """Keeps the passes of speculative decoding."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._passes = list[tuple[list[int], int]]()

    def __call__(self, drafts: Sequence[int], accepted: int) -> None:
        """Takes the draft tokens of a pass, and how many of them the model accepted."""
        self._passes.append((list(drafts), accepted))

    def told(self, choices: Choices, ids: Sequence[int]) -> Choices:
        """What is known of this answer, with the passes and, at each token, whether it was drafted."""
        passes, drafted, left = list[SpeculativePass](), list[bool](), list(ids)
        for drafts, matches in self._passes:
            if not left:
                break
            accepted = min(matches, len(left))
            own = left[accepted : accepted + 1]
            passes.append(SpeculativePass(tuple(map(self._text, drafts)), accepted, "".join(map(self._text, own))))
            drafted += [True] * accepted + [False] * len(own)
            left = left[accepted + 1 :]
        scores = (replace(each, drafted=one) for each, one in zip(choices.answer, drafted, strict=False))
        return replace(choices, passes=tuple(passes), answer=(*scores, *choices.answer[len(drafted) :]))

    def _text(self, token: int) -> str:
        return self._tokenizer.decode([token])


Recorder = BeamRecorder | TermRecorder | PassRecorder
RECORDERS: dict[str, type[Recorder]] = {  # by what a decoder tells, see `Strategy.record`
    "on_beams": BeamRecorder,
    "on_candidates": TermRecorder,
    "on_pass": PassRecorder,
}
