"""The bytes of the tokens of a text: of any tokenizer, and wherever a character is cut."""

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from parley.api.turns.answer_tokens import written
from parley.events import TokenScore
from parley.generation.detokenizer import IncrementalDetokenizer
from parley.strategies.token_bytes import own_bytes

TEXTS = ["An owl: 🦉!", "über 🏳️‍🌈 flag", "日本語", "plain", "a\nb\t c", "\N{REPLACEMENT CHARACTER} é"]


@pytest.fixture(scope="module")
def byte_fallback():
    """A tokenizer of SentencePiece's kind, with a token for each byte."""
    words = ["<unk>", *[f"<0x{each:02X}>" for each in range(256)], "▁plain", "▁", "a", "b", "c", ":", "!", "owl"]
    tokenizer = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def scored(tokenizer, ids):
    detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)
    return [TokenScore(each, detokenizer.step(each), -1.0, 1, -1.0, 1, 1.0, ()) for each in ids]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_joined_they_are_the_text(budgie, byte_fallback, kind, text):
    tokenizer = budgie.loaded.tokenizer if kind == "byte level" else byte_fallback
    ids = tokenizer.encode(text, add_special_tokens=False)
    own = {each: own_bytes(tokenizer, each) for each in ids}
    pieces = written(scored(tokenizer, ids), own)
    assert b"".join(pieces) == text.encode()
    assert all(len(piece) == len(own[each]) for piece, each in list(zip(pieces, ids, strict=True))[1:])


def test_what_is_no_character_is_a_replacement(byte_fallback):
    ids = [1 + byte for byte in b"\xf0\x9f" + b"a"]
    own = {each: own_bytes(byte_fallback, each) for each in ids}
    assert b"".join(written(scored(byte_fallback, ids), own)).decode().endswith("a")


def test_a_control_token_adds_nothing(budgie):
    tokenizer = budgie.loaded.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert own_bytes(tokenizer, end) == b"<|im_end|>"
    score = TokenScore(end, "<|im_end|>", -1.0, 1, -1.0, 1, 1.0, (), control=True)
    assert written([score], {end: b"<|im_end|>"}) == [b""]
