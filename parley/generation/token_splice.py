"""The tokens that were generated, in place of those into which their text would be cut again."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

from parley.generation.prefix_cache import common_prefix


def reuse_generated_ids(kept: Sequence[int], plain: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`plain`, a prompt, with its beginning replaced by the longest beginning of `kept` that reads the same.

    The text stays the same to the character, and so do the control tokens and their places: what was text in the
    prompt never becomes one. Where there is any doubt the tokens are those of `plain`.
    """
    plain = list(plain)
    start = common_prefix(kept, plain)
    if start in (len(kept), len(plain)):
        return plain
    mine, theirs = (_Reading(tokenizer, ids, start) for ids in (kept, plain))
    same = common_prefix(mine.text, theirs.text)
    broken = mine.text.find("\ufffd")  # what bytes it stands for is not known
    if broken >= 0:
        same = min(same, broken)
    for pair in zip_longest(mine.controls, theirs.controls):
        if pair[0] != pair[1]:
            same = min(same, *(control.end - 1 for control in pair if control))
            break
    joint = max((end for end in mine.joints.keys() & theirs.joints.keys() if end <= same), default=None)
    if joint is None:
        return plain
    spliced = [*kept[: mine.joints[joint]], *plain[theirs.joints[joint] :]]
    return spliced if _text(tokenizer, spliced) == _text(tokenizer, plain) else plain


@dataclass(frozen=True)
class _Control:
    """A token that no text is cut into, and where it ends in the text."""

    id: int
    end: int


class _Reading:
    """The text of `ids[start:]`, and where in it tokens end."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], start: int) -> None:
        decode = DecodeStream(ids=list(ids[max(0, start - 8) : start]), skip_special_tokens=False)
        added = tokenizer.added_tokens_decoder
        pieces, end = [], 0
        self.joints: dict[int, int] = {}  # characters of text to tokens of `ids`, where no character is cut
        self.controls: list[_Control] = []
        for index, token in enumerate(ids[start:], start + 1):
            piece = decode.step(tokenizer.backend_tokenizer, token)
            if piece is not None:
                pieces.append(piece)
                end += len(piece)
                self.joints[end] = index
            if token in added:
                self.controls.append(_Control(token, end))
        self.text = "".join(pieces)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
