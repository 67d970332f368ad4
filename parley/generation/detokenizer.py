"""Turns a stream of tokens into text, one token at a time. Text that was given out is never changed or repeated."""

import codecs
import weakref
from collections.abc import Mapping, MutableMapping, Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

_BYTE_NAMES = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}
_byte_tokens: MutableMapping[PreTrainedTokenizerBase, Mapping[int, bytes]] = weakref.WeakKeyDictionary()
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
        self._backend = tokenizer.backend_tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        before = list(context[-CONTEXT_TOKENS:])
        self._stream = DecodeStream(ids=before, skip_special_tokens=skip_special_tokens)
        self._byte_tokens = byte_tokens(tokenizer)
        for byte in map(self._byte_tokens.get, before):  # the context may end within a character
            self._bytes.decode(byte or b"", final=byte is None)

    def step(self, token: int) -> str:
        """The text that this token completes; empty where a character is not complete."""
        if (byte := self._byte_tokens.get(token)) is not None:
            return self._bytes.decode(byte)
        incomplete = self._bytes.decode(b"", final=True) if self._byte_tokens else ""
        return incomplete + (self._stream.step(self._backend, token) or "")


def byte_tokens(tokenizer: PreTrainedTokenizerBase) -> Mapping[int, bytes]:
    """The tokens that stand for a byte by byte fallback, by their ids. Empty for most tokenizers."""
    known = _byte_tokens.get(tokenizer)
    if known is None:
        vocabulary = tokenizer.get_vocab()
        known = _byte_tokens[tokenizer] = {
            vocabulary[name]: byte
            for name, byte in _BYTE_NAMES.items()
            if name in vocabulary and name != tokenizer.decode([vocabulary[name]]) == byte.decode("utf-8", "replace")
        }
    return known
