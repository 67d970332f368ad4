"""What a server says of the probabilities of its tokens: the `logprobs` of a chat completion."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from parley.events import Candidate, TokenScore
from parley.settings import is_number, replace_lone_surrogates

SHOWN = 10  # candidates of a token
ARGUMENTS = {"logprobs": True, "top_logprobs": SHOWN}


def token_scores(contents: Sequence[Any]) -> tuple[TokenScore, ...]:
    """The scores of these tokens, without what a server does not tell. Raises `TypeError` where they have no form.

    A server names no ids, so that they are counted here.
    """
    return tuple(map(_score, contents))


def _score(content: Any) -> TokenScore:
    text, logprob = _token(content)
    listed = content.get("top_logprobs") or []
    if not isinstance(listed, list):
        raise TypeError
    known = {text: logprob} | dict(map(_token, listed[:SHOWN]))
    ordered = sorted(known.items(), key=lambda each: -each[1])
    candidates = tuple(Candidate(id, each, value, value, "", None) for id, (each, value) in enumerate(ordered))
    place = next(each.id for each in candidates if each.text == text)
    return TokenScore(place, text, logprob, place + 1, logprob, place + 1, math.nan, candidates)


def _token(content: Any) -> tuple[str, float]:
    if not isinstance(content, Mapping):
        raise TypeError
    text, logprob = content.get("token"), content.get("logprob")
    if not isinstance(text, str) or not is_number(logprob):
        raise TypeError
    return replace_lone_surrogates(text), min(0.0, float(logprob or 0))
