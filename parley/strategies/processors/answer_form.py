"""Structured answers: only tokens remain with which the answer can still have its form, by llguidance.

https://github.com/guidance-ai/llguidance. Where the grammar leaves one text alone, the token that remains is that of
the tokenizer for it. So the decode loop can let all of these go through in one pass, as drafts that are accepted.
"""

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from parley.answer_forms import grammar_of
from parley.errors import BadSetting
from parley.strategies.token_bytes import own_bytes

KEPT = 64  # states of the grammar, for the beams and drafts of a step


@dataclass(frozen=True)
class Thought:
    """What stands before the answer of a model that thinks: the grammar begins behind it."""

    opening: Sequence[int] = ()  # tokens; empty: the prompt has opened the thought
    closing: str = ""  # the mark after which the answer begins
    blank: Sequence[int] = ()  # tokens of the blank space between them


class AnswerForm(LogitsProcessor):
    """Removes the tokens that the form does not allow. A text that has left it already is free.

    `begun` are the tokens of the answer that the prompt holds. Raises `BadSetting` for a form that cannot be used.
    """

    def __init__(
        self,
        form: str,
        pattern: str,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        prompt_length: int,
        begun: Sequence[int] = (),
        thought: Thought | None = None,
    ) -> None:
        self._form, self._pattern, self._tokenizer, self._end_ids = form, pattern, tokenizer, list(end_ids)
        self._prompt_length, self._begun, self._thought = prompt_length, list(begun), thought
        self._bytes = functools.cache(functools.partial(own_bytes, tokenizer))
        self._states = OrderedDict[tuple[int, ...], Any]()  # by the tokens; None for a text without the form
        self.shares = dict[int, float]()  # of the probability that was taken away, by the length of the answer
        start = LLMatcher(_tokenizer(tokenizer, tuple(end_ids)), grammar_of(form, pattern), log_level=0)
        if start.is_error():
            raise BadSetting(f"This {form} cannot be used: {' '.join(start.get_error().split())[:160]}.")
        if begun and not start.consume_tokens(self._begun):
            raise BadSetting("The words that begin the answer do not fit its form. Change them, or the form.")
        self._start = start

    def __repr__(self) -> str:
        more = f", {self._begun}, {self._thought}" if self._thought or self._begun else ""
        return (
            f"AnswerForm({self._form!r}, {self._pattern!r}, tokenizer, {self._end_ids}, {self._prompt_length}{more})"
        )

    @property
    def taken(self) -> float:
        """The share of the probability that was taken away at the last place of the first sequence."""
        return next(reversed(self.shares.values()), 0.0)

    @property
    def mean_share(self) -> float:
        """The mean of that at all places so far."""
        return sum(self.shares.values()) / max(1, len(self.shares))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (sequences, tokens); `scores`: shape (sequences, vocabulary)."""
        scores = scores.clone()
        for row, answer in enumerate(input_ids[:, self._prompt_length :].tolist()):
            allowed, forced = self._allowed(answer, scores.shape[1])
            if not row:
                self.shares.pop(len(answer), None)  # the newest one comes last
                share = 0.0 if allowed is None else 1.0 - float(scores[0].softmax(-1)[allowed].sum())
                self.shares[len(answer)] = min(1.0, max(0.0, share))
            if forced:
                allowed = torch.tensor(forced[:1])
            if allowed is not None:
                only = torch.full_like(scores[row], -torch.inf)
                kept = scores[row, allowed]
                # What others have removed comes back where nothing else is left.
                only[allowed] = kept if bool((kept > -torch.inf).any()) else torch.zeros_like(kept)
                scores[row] = only
        return scores

    def after(self, input_ids: torch.Tensor) -> list[int]:
        """The tokens that have to follow this text, shape (1, tokens)."""
        answer = input_ids[0, self._prompt_length :].tolist()
        marks, begin = self._place(answer)
        if marks or begin is None:
            return marks
        state = self._state(tuple(answer[begin:]))
        return state.compute_ff_tokens() if state else []

    def _allowed(self, answer: Sequence[int], vocabulary: int) -> tuple[torch.Tensor | None, list[int]]:
        """The tokens that may follow, None for all; and those that have to follow, if there is one way only."""
        marks, begin = self._place(answer)
        if marks:
            return torch.tensor(marks[:1]), marks
        state = None if begin is None else self._state(tuple(answer[begin:]))
        if state is None:
            return None, []
        bits = np.unpackbits(np.frombuffer(state.compute_bitmask(), np.uint8), bitorder="little")[:vocabulary]
        allowed = torch.from_numpy(bits.nonzero()[0])
        return (allowed, state.compute_ff_tokens()) if len(allowed) else (None, [])

    def _place(self, answer: Sequence[int]) -> tuple[list[int], int | None]:
        """The tokens of marks that have to follow, and from where on the grammar counts; None within a thought."""
        if self._thought is None:
            return [], 0
        opening, blank = list(self._thought.opening), list(self._thought.blank)
        if len(answer) < len(opening):
            return opening[len(answer) :], None
        closed, text, mark = len(opening), b"", self._thought.closing.encode()
        while mark not in text:
            if closed == len(answer):
                return [], None
            text += self._bytes(answer[closed])
            closed += 1
        if not text.endswith(mark):  # its last token has the blank space
            return [], closed
        return blank[len(answer) - closed :], closed + len(blank)

    def _state(self, tokens: tuple[int, ...]) -> Any:
        """The grammar after these tokens; None where they do not have the form."""
        if tokens in self._states:
            self._states.move_to_end(tokens)
            return self._states[tokens]
        known = tokens[:-1] in self._states
        state = self._states[tokens[:-1]] if known else self._start
        if state is not None:
            state, new = state.deep_copy(), tokens[-1:] if known else tokens
            state = state if not new or state.consume_tokens(list(new)) else None
        self._states[tokens] = state
        if len(self._states) > KEPT:
            self._states.popitem(last=False)
        return state


@functools.lru_cache(maxsize=4)
def _tokenizer(tokenizer: PreTrainedTokenizerBase, end_ids: tuple[int, ...]) -> Any:
    """The tokenizer as llguidance has it. Takes up to a second, so it is kept."""
    return from_tokenizer(tokenizer, eos_token=list(end_ids))
