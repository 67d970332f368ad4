"""The tokens of which the text of an answer consists, each with its bytes and its probability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parley.events import Answer, Candidate, TokenScore
from parley.serving import turn

REMOVED = -9999.0  # in the place of minus infinity, which JSON does not have, as in the OpenAI API


@dataclass(frozen=True)
class AnswerToken:
    """A token of a text. The bytes of all of them, joined, are the text in UTF-8."""

    score: TokenScore
    piece: bytes
    own: Mapping[int, bytes]  # the bytes of this and other tokens, wherever they stand

    def logprob(self, processed: bool = False) -> float:
        """By the model alone or, if `processed`, after the processors of the strategy."""
        return finite(self.score.after if processed else self.score.logprob)

    def candidates(self, count: int, processed: bool = False) -> list[tuple[Candidate, float]]:
        """The likeliest tokens in its place, with their log probabilities, the likeliest first."""
        key = (lambda each: each.after) if processed else (lambda each: each.logprob)
        best = sorted(self.score.candidates, key=key, reverse=True)[:count]
        return [(each, finite(key(each))) for each in best]

    def bytes_of(self, each: TokenScore | Candidate) -> bytes:
        """The bytes that one of the candidates, or the token itself, adds to the text."""
        return self.piece if each.id == self.score.id else self.own[each.id]

    def as_data(self, count: int) -> dict[str, Any]:
        """For /generate."""
        top = [self._described(each) for each, _ in self.candidates(count)]
        return self._described(self.score) | {"rank": self.score.rank, "top_logprobs": top}

    def _described(self, each: TokenScore | Candidate) -> dict[str, Any]:
        own = self.bytes_of(each)
        values = {"logprob": finite(each.logprob), "after": finite(each.after)}
        return {"id": each.id, "token": own.decode("utf-8", "replace"), "bytes": list(own)} | values


def answer_tokens(answer: Answer, scores: Sequence[TokenScore], model: str) -> list[AnswerToken]:
    """The tokens of the text of an answer, without those of its thought, of a stop string, and of its end."""
    ids = {score.id for score in scores} | {each.id for score in scores for each in score.candidates}
    own = dict(zip(ids, turn.token_bytes(model, list(ids)), strict=True)) if ids else {}
    pieces = written(scores, own)
    whole, text, thought = b"".join(pieces), answer.text.encode(), answer.thought.encode()
    begin = whole.find(text, whole.find(thought) + len(thought) if thought else 0)
    found, at = list[AnswerToken](), 0
    for score, piece in zip(scores, pieces, strict=True):
        first, last = max(begin - at, 0), min(begin + len(text) - at, len(piece))
        inside = first < last or (not piece and begin < at < begin + len(text) and not score.control)
        if inside:
            found.append(AnswerToken(score, piece[first:last], own))
        at += len(piece)
    return found


def written(scores: Sequence[TokenScore], own: Mapping[int, bytes]) -> list[bytes]:
    """The bytes that each token adds to the text. A control token adds none.

    A text that several tokens complete is divided by the bytes that each stands for. Where these are others, as in a
    text that is not valid UTF-8, it goes to the last of them.
    """
    pieces, open_ = list[bytes](), list[int]()
    for score in scores:
        open_.append(score.id)
        text = b"" if score.control else score.text.encode()
        if not score.text:
            pieces.append(b"")
            continue
        first = len(pieces) + 1 - len(open_)
        pieces.append(text)
        if len(open_) > 1 and sum(len(own[each]) for each in open_) == len(text):
            for i, each in enumerate(open_):
                pieces[first + i], text = text[: len(own[each])], text[len(own[each]) :]
        open_.clear()
    return pieces


def finite(logprob: float) -> float:
    """The log probability, or `REMOVED` in the place of minus infinity."""
    return max(logprob, REMOVED)
