"""Turns a stream of tokens into text, one token at a time. Text that was given out is never changed or repeated."""

import codecs
import re
from collections.abc import Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
CONTEXT_TOKENS = 8  # before a piece of text, which decide whether it begins with a space


class IncrementalDetokenizer:
    """Decodes one sequence of tokens that goes on after `context`, by default without special tokens.

    A character comes when its last byte has come. Tokenizers with byte fallback (Llama 2, Mistral, Gemma) decode a run
    of byte tokens as a whole, and replace all of it where one byte is wrong, also bytes whose character was given out
    before. So byte tokens are decoded here, and each byte that is wrong gives one U+FFFD.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, context: Sequence[int] = (), *, skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        before = list(context[-CONTEXT_TOKENS:])
        self._stream = DecodeStream(ids=before, skip_special_tokens=skip_special_tokens)
        for byte in map(self._byte, before):  # the context may end within a character
            self._bytes.decode(b"" if byte is None else bytes([byte]), final=byte is None)

    def step(self, token: int) -> str:
        """The text that this token completes; empty where a character is not complete."""
        if (byte := self._byte(token)) is not None:
            return self._bytes.decode(bytes([byte]))
        incomplete = self._bytes.decode(b"", final=True)
        return incomplete + (self._stream.step(self._tokenizer.backend_tokenizer, token) or "")

    def _byte(self, token: int) -> int | None:
        """The byte that this token stands for by byte fallback; None for other tokens."""
        name = self._tokenizer.convert_ids_to_tokens(token)
        match = _BYTE_TOKEN.fullmatch(name) if name else None
        if match is None or (character := self._tokenizer.decode([token])) == name:
            return None
        byte = int(match[1], 16)
        return byte if character == bytes([byte]).decode("utf-8", "replace") else None
