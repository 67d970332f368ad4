"""A budget for thinking: a thought that reaches it is closed, and the answer begins (Muennighoff et al., 2025).

https://arxiv.org/abs/2501.19393, which calls it budget forcing. Not in transformers.
"""

import math
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class ThinkingBudget(LogitsProcessor):
    """Lets nothing but the closing mark follow a thought of `tokens` tokens.

    `opening` and `closing` are the tokens of the marks round a thought, `prompt` the length of the prompt; an empty
    `opening` says that the prompt has opened the thought already. A thought is only looked for at the start of the
    answer.
    """

    def __init__(self, tokens: int, prompt: int, opening: Sequence[int], closing: Sequence[int]) -> None:
        self._tokens, self._prompt = tokens, prompt
        self._opening, self._closing = list(opening), list(closing)

    def __repr__(self) -> str:
        return f"ThinkingBudget({self._tokens}, {self._prompt}, {self._opening}, {self._closing})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (rows, tokens); `scores`: shape (rows, vocabulary)."""
        for row, answer in enumerate(input_ids[:, self._prompt :].tolist()):
            token = self._due(answer)
            if token is not None:
                scores = scores.clone()
                scores[row] = -math.inf
                scores[row, token] = 0.0
        return scores

    def _due(self, answer: Sequence[int]) -> int | None:
        """The token of the closing mark that has to come next; None while there is no need."""
        begin = len(self._opening)
        thought, mark = answer[begin:], self._closing
        if len(thought) < self._tokens or answer[:begin] != self._opening:
            return None
        if any(thought[i : i + len(mark)] == mark for i in range(min(len(thought), self._tokens + len(mark)))):
            return None
        # What of the mark is there already, by the model's own will or by ours.
        there = next(n for n in reversed(range(len(mark))) if thought[len(thought) - n :] == mark[:n])
        return mark[there]
