"""A budget for thinking: a thought that reaches it is closed, and the answer begins (Muennighoff et al., 2025).

https://arxiv.org/abs/2501.19393 calls this budget forcing. Transformers does not have it.
"""

import math
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class ThinkingBudget(LogitsProcessor):
    """After a thought of `budget` tokens, allows only the tokens of the closing tag.

    `opening` and `closing` are the tokens of the tags around a thought, `prompt_length` is in tokens. An empty
    `opening` means that the prompt has opened the thought. Only a thought at the start of the answer counts.
    `answering` are the tokens that open the answer. They follow a closing tag that was forced.
    """

    def __init__(
        self,
        budget: int,
        prompt_length: int,
        opening: Sequence[int],
        closing: Sequence[int],
        answering: Sequence[int] = (),
    ) -> None:
        self._budget, self._prompt_length = budget, prompt_length
        self._opening, self._closing, self._answering = list(opening), list(closing), list(answering)

    def __repr__(self) -> str:
        rest = f", {self._answering}" if self._answering else ""
        return f"ThinkingBudget({self._budget}, {self._prompt_length}, {self._opening}, {self._closing}{rest})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (sequences, tokens); `scores`: shape (sequences, vocabulary)."""
        for row, answer in enumerate(input_ids[:, self._prompt_length :].tolist()):
            token = self._forced_token(answer)
            if token is not None:
                scores = scores.clone()
                scores[row] = -math.inf
                scores[row, token] = 0.0
        return scores

    def _forced_token(self, answer: Sequence[int]) -> int | None:
        """The token of the closing tag that has to come next; None where the model may choose freely."""
        start = len(self._opening)
        thought, closing = answer[start:], self._closing
        if len(thought) < self._budget or answer[:start] != self._opening:
            return None
        last = min(len(thought), self._budget + len(closing))
        closed = next((i for i in range(last) if thought[i : i + len(closing)] == closing), None)
        if closed is not None:
            after = thought[closed + len(closing) :]
            forced = closed + len(closing) > self._budget and len(after) < len(self._answering)
            return self._answering[len(after)] if forced and after == self._answering[: len(after)] else None
        # How many tokens of the closing tag the thought ends with, chosen by the model or forced before.
        present = next(n for n in reversed(range(len(closing))) if thought[len(thought) - n :] == closing[:n])
        return closing[present]
