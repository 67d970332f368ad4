"""Words that an answer must not contain, whatever tokens they would be written with.

koboldcpp bans phrases in the same way, by the text, and takes tokens back once one has occurred ("phrase banning"):
https://github.com/LostRuins/koboldcpp/wiki#what-is-antislop-phrase-banning. Here the token that would complete one is
removed, so that nothing has to be taken back. `bad_words_ids` of transformers only forbids one way of writing a word.
"""

import functools
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from parley.strategies.token_bytes import own_bytes


class BannedWords(LogitsProcessor):
    """Removes each token that would complete one of the words, in small letters, in capitals or with a capital first.

    Words count within longer words too. A beginning in the prompt does not count.
    """

    def __init__(self, words: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_length: int) -> None:
        self._words, self._tokenizer, self._prompt_length = list(words), tokenizer, prompt_length
        ways = {each for word in words for each in (word, word.lower(), word.upper(), word.capitalize(), word.title())}
        self._texts = [each.encode() for each in ways]
        self._longest = max(map(len, self._texts))
        self._completing = functools.cache(functools.partial(_completing, tokenizer))

    def __repr__(self) -> str:
        return f"BannedWords({self._words}, tokenizer, {self._prompt_length})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: shape (sequences, tokens); `scores`: shape (sequences, vocabulary)."""
        scores = scores.clone()
        for row, answer in enumerate(input_ids[:, self._prompt_length :].tolist()):
            # Each token has a byte at least, so the last ones suffice.
            end = b"".join(own_bytes(self._tokenizer, each) for each in answer[-self._longest :])
            for text in self._texts:
                for length in range(len(text)):
                    if end.endswith(text[:length]):
                        scores[row, self._completing(text, length)] = -torch.inf
        return scores


def _completing(tokenizer: PreTrainedTokenizerBase, text: bytes, length: int) -> list[int]:
    """The tokens that complete a text of which so many bytes are there."""
    tokens = _token_bytes(tokenizer)
    if not length:
        return [id for id, each in enumerate(tokens) if text in each]
    return [id for id, each in enumerate(tokens) if each.startswith(text[length:])]


@functools.lru_cache(maxsize=4)
def _token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The bytes of all tokens, without the control tokens, which are no text."""
    control = set(tokenizer.all_special_ids)
    return [b"" if id in control else own_bytes(tokenizer, id) for id in range(len(tokenizer))]
