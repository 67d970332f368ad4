"""The bytes that a token stands for. A character may have several tokens, of which none is text by itself."""

import re

from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def own_bytes(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    """The bytes of one token within a text; the text of its name for a control token."""
    added = tokenizer.added_tokens_decoder.get(token)
    if added is not None:
        return added.content.encode()
    name = tokenizer.convert_ids_to_tokens(token)
    if name is None:  # the vocabulary of the model is padded
        return b""
    if _is_byte_level(tokenizer):
        return bytes(_BYTES[each] for each in name) if all(each in _BYTES for each in name) else name.encode()
    if found := _BYTE_TOKEN.fullmatch(name):
        return bytes([int(found[1], 16)])
    return name.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether each character in the name of a token stands for a byte, as in GPT-2."""
    return "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder)


def _byte_characters() -> dict[str, int]:
    """The byte for each character of GPT-2's table: those that can be printed are themselves."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [each for each in range(256) if each not in printed]
    return {chr(each): each for each in printed} | {chr(256 + i): each for i, each in enumerate(others)}


_BYTES = _byte_characters()
