"""Conversations with a mix of lengths like ShareGPT's, made by rules from a seed; their text is that of english.txt.

vLLM's own benchmark reads 1,000 requests of ShareGPT with 229,711 tokens of prompts and 203,068 of answers, none of
more than 2,048 together (https://github.com/vllm-project/vllm/pull/18566). The means here are a quarter of these, for
a model of 135M parameters on two cores. Both lengths are drawn from lognormal distributions; their spread is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from benchmarks.measures import ENGLISH

SCALE = 4  # the published means are divided by it
MEAN_PROMPT, MEAN_ANSWER = 229.7 / SCALE, 203.1 / SCALE  # tokens
SPREAD_PROMPT, SPREAD_ANSWER = 1.2, 0.7  # standard deviations of the logarithms
MIN_TOKENS, MAX_PROMPT, MAX_ANSWER = 4, 400, 200
MAX_TURNS, GOES_ON = 3, 0.5  # the share of visitors who ask once more after an answer


@dataclass(frozen=True)
class Question:
    """What a visitor asks, and how many tokens the answer has."""

    text: str
    new: int


Conversation = tuple[Question, ...]


@dataclass(frozen=True)
class Workload:
    """Conversations, and for each the tokens that a model reads for its questions (see `tokens`)."""

    conversations: Sequence[Conversation]
    read: Sequence[Sequence[list[int]]]

    @property
    def new_tokens(self) -> int:
        """How many tokens all answers have."""
        return sum(question.new for conversation in self.conversations for question in conversation)


def workload(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> Workload:
    """So many conversations, the same for the same seed."""
    made = conversations(tokenizer, count, seed)
    return Workload(made, [tokens(tokenizer, each) for each in made])


def conversations(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[Conversation]:
    """As above, without their tokens."""
    random = np.random.default_rng(seed)
    cut = _scissors(tokenizer, random)

    def length(mean: float, spread: float, most: int) -> int:
        drawn = random.lognormal(np.log(mean) - spread**2 / 2, spread)
        return int(np.clip(round(drawn), MIN_TOKENS, most))

    def question() -> Question:
        tokens = length(MEAN_PROMPT, SPREAD_PROMPT, MAX_PROMPT)
        return Question(cut(tokens), length(MEAN_ANSWER, SPREAD_ANSWER, MAX_ANSWER))

    def turns() -> int:
        return int(min(MAX_TURNS, random.geometric(1 - GOES_ON)))

    return [tuple(question() for _ in range(turns())) for _ in range(count)]


def alike(tokenizer: PreTrainedTokenizerBase, count: int, lengths: tuple[int, int], seed: int) -> Workload:
    """So many conversations of one question, all with prompts and answers of about the same two `lengths`."""
    cut = _scissors(tokenizer, np.random.default_rng(seed))
    made = [(Question(cut(lengths[0]), lengths[1]),) for _ in range(count)]
    return Workload(made, [tokens(tokenizer, each) for each in made])


def tokens(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[list[int]]:
    """What a model reads for each question after its own answers: the first time the whole prompt, later what follows
    an answer in the chat template.
    """
    answer = "\0"  # stands for it
    first = [{"role": "user", "content": conversation[0].text}]
    read = [_rendered(tokenizer, first)]
    for question in conversation[1:]:
        after = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": question.text}]
        read.append(_rendered(tokenizer, after).split(answer, 1)[1])
    return [tokenizer.encode(text, add_special_tokens=False) for text in read]


def _scissors(tokenizer: PreTrainedTokenizerBase, random: np.random.Generator) -> Callable[[int], str]:
    """Cuts so many tokens of text, each time somewhere else."""
    words = tokenizer.encode(ENGLISH, add_special_tokens=False)

    def cut(tokens: int) -> str:
        begin = random.integers(len(words) - tokens)
        return tokenizer.decode(words[begin : begin + tokens]).strip()

    return cut


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
