"""Tokenises parts of a text as they stand within it, without the space that some tokenizers put before a text."""

from transformers import PreTrainedTokenizerBase


def encode_inside(tokenizer: PreTrainedTokenizerBase, text: str, first: bool = False) -> list[int]:
    """The tokens of a text that follows other text, or with `first` of one that begins."""
    plain = tokenizer.encode(text, add_special_tokens=False)
    if first:
        return plain
    # Tokenizers of the SentencePiece family put a space before a text. They put it before a line break as well.
    line_break = tokenizer.encode("\n", add_special_tokens=False)
    ids = tokenizer.encode(f"\n{text}", add_special_tokens=False)
    return ids[len(line_break) :] if ids[: len(line_break)] == line_break else plain


def encode_as_text(tokenizer: PreTrainedTokenizerBase, token: str) -> list[int]:
    """The characters of a control token as tokens of ordinary text that follows other text."""
    own = tokenizer.convert_tokens_to_ids(token)
    ids = tokenizer.encode(token, add_special_tokens=False, split_special_tokens=True)
    if own not in ids:
        return ids
    # Some vocabularies have the same characters as an ordinary token too, or take added tokens out in any case.
    half = len(token) // 2
    return [id for part in (token[:half], token[half:]) if part for id in encode_inside(tokenizer, part)]
