"""Reuses generated tokens in the next prompt. Tokenising their text again may give other tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from transformers import PreTrainedTokenizerBase

from parley.generation.detokenizer import IncrementalDetokenizer
from parley.generation.prefix_cache import common_prefix


def reuse_generated_ids(cached: Sequence[int], prompt: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of `prompt`, with a prefix replaced by the longest prefix of `cached` that has the same text.

    The text stays exactly the same, and so do the control tokens and their positions: text in the prompt never becomes
    a control token. In any case of doubt the tokens are those of `prompt`.
    """
    prompt = list(prompt)
    start = common_prefix(cached, prompt)
    if start in (len(cached), len(prompt)):
        return prompt
    ours, theirs = (_DecodedTokens(tokenizer, ids, start) for ids in (cached, prompt))
    same = common_prefix(ours.text, theirs.text)  # characters
    replacement = ours.text.find("\ufffd")  # it may stand for any bytes
    if replacement >= 0:
        same = min(same, replacement)
    for pair in zip_longest(ours.controls, theirs.controls):
        if pair[0] != pair[1]:
            same = min(same, *(control.end - 1 for control in pair if control))
            break
    cut = max((end for end in ours.boundaries.keys() & theirs.boundaries.keys() if end <= same), default=None)
    if cut is None:
        return prompt
    spliced = [*cached[: ours.boundaries[cut]], *prompt[theirs.boundaries[cut] :]]
    return spliced if _text(tokenizer, spliced) == _text(tokenizer, prompt) else prompt


@dataclass(frozen=True)
class _Control:
    """A token that tokenising text never gives."""

    id: int
    end: int  # its end in the text, in characters


class _DecodedTokens:
    """The text of `ids[start:]`, and the positions in it where tokens end."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], start: int) -> None:
        detokenizer = IncrementalDetokenizer(tokenizer, ids[:start], skip_special_tokens=False)
        added = tokenizer.added_tokens_decoder
        chunks, end = [], 0
        self.boundaries: dict[int, int] = {}  # number of characters to number of tokens, only after whole characters
        self.controls: list[_Control] = []
        for index, token in enumerate(ids[start:], start + 1):
            if chunk := detokenizer.step(token):
                chunks.append(chunk)
                end += len(chunk)
                self.boundaries[end] = index
            if token in added:
                self.controls.append(_Control(token, end))
        self.text = "".join(chunks)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
