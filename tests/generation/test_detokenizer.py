"""Tokens become text one by one, and text that was given out stays."""

import codecs
import random

import pytest

from parley.generation.detokenizer import IncrementalDetokenizer


@pytest.fixture(scope="module")
def tokenizer(sentencepiece_like):
    return sentencepiece_like


def byte_ids(tokenizer, data):
    return tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in data])


def chunks(tokenizer, ids, context=()):
    detokenizer = IncrementalDetokenizer(tokenizer, context)
    return [detokenizer.step(token) for token in ids]


def test_a_byte_that_nothing_completes_leaves_the_character_before_it(tokenizer):
    """Public case 3: a run of byte tokens with one wrong byte decodes as nothing but U+FFFD."""
    fox = tokenizer.encode("fox", add_special_tokens=False)
    ids = [*byte_ids(tokenizer, b"\xe6\x97\xa5\xe6"), *fox]
    assert "日" not in tokenizer.decode(ids)
    assert chunks(tokenizer, ids, fox)[:4] == ["", "", "日", ""]
    assert "".join(chunks(tokenizer, ids, fox)) == "日\N{REPLACEMENT CHARACTER} fox"


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_between_words_are_decoded_as_one_stream(tokenizer, seed):
    chance = random.Random(seed)
    words = [tokenizer.encode(word, add_special_tokens=False) for word in ("fox", "dog", "if x")]
    context, ids, right = words[0], [], []
    for _ in range(12):
        data = "日é😀a".encode()
        start = chance.randrange(len(data))
        part = data[start : start + chance.randint(1, 5)]
        ids += [*byte_ids(tokenizer, part), *words[1]]
        right += [codecs.decode(part, "utf-8", "replace"), " dog"]
    assert "".join(chunks(tokenizer, ids, context)) == "".join(right)


def test_a_character_that_began_in_the_context_is_completed(tokenizer):
    begun, rest = byte_ids(tokenizer, b"\xe6\x97"), byte_ids(tokenizer, b"\xa5")
    assert chunks(tokenizer, rest, begun) == ["日"]
    ended = tokenizer.encode("fox", add_special_tokens=False)
    assert chunks(tokenizer, rest, [*begun, *ended]) == ["\N{REPLACEMENT CHARACTER}"]


def test_where_such_tokens_are_ordinary_text_they_stay_text(budgie):
    tokenizer = budgie.loaded.tokenizer
    text = "It is <0x41>."
    assert "".join(chunks(tokenizer, tokenizer.encode(text, add_special_tokens=False))) == text
