"""Tokenises parts of a text as they stand within it, without the space that some tokenizers put before a text."""

import re
from collections.abc import Collection
from typing import Any

from transformers import PreTrainedTokenizerBase


def encode_inside(tokenizer: PreTrainedTokenizerBase, text: str, first: bool = False, **options: Any) -> list[int]:
    """The tokens of a text that follows other text, or with `first` of one that begins.

    `options` are arguments of the `encode` of transformers.
    """
    plain = tokenizer.encode(text, add_special_tokens=False, **options)
    if first:
        return plain
    # Tokenizers of the SentencePiece family put a space before a text. They put it before a line break as well.
    line_break = tokenizer.encode("\n", add_special_tokens=False)
    ids = tokenizer.encode(f"\n{text}", add_special_tokens=False, **options)
    return ids[len(line_break) :] if ids[: len(line_break)] == line_break else plain


def encode_as_text(tokenizer: PreTrainedTokenizerBase, token: str) -> list[int]:
    """The characters of a control token as tokens of ordinary text that follows other text."""
    ids = encode_inside(tokenizer, token, split_special_tokens=True)
    if tokenizer.convert_tokens_to_ids(token) not in ids:
        return ids
    # This is an added token that is not special, or the vocabulary has the same characters as an ordinary token too.
    half = len(token) // 2
    return [id for part in (token[:half], token[half:]) if part for id in encode_inside(tokenizer, part)]


def encode_typed(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text that a person typed, within other text: control tokens in it are ordinary text."""
    pieces = re.split(f"({control_pattern(tokenizer.chat_control_tokens or ())})", text)
    encoded = (
        encode_as_text(tokenizer, piece) if i % 2 else encode_inside(tokenizer, piece)
        for i, piece in enumerate(pieces)
        if piece
    )
    return [id for ids in encoded for id in ids]


def control_pattern(tokens: Collection[str]) -> str:
    """A pattern for any of these tokens, the longest first; it matches nothing where there are none."""
    if not tokens:
        return "(?!)"
    first = "".join(sorted({re.escape(token[0]) for token in tokens}))  # a look at one character saves most attempts
    return f"(?=[{first}])(?:{'|'.join(map(re.escape, sorted(tokens, key=len, reverse=True)))})"
