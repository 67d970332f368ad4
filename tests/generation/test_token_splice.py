"""Generated tokens instead of those into which their text would be cut again: what is read stays the same."""

import random

import pytest

from parley.generation.token_splice import reuse_generated_ids


def cut_small(tokenizer, text):
    """The tokens of a text with every word cut into the smallest pieces."""
    vocabulary = tokenizer.get_vocab()
    for id in tokenizer.encode(text, add_special_tokens=False):
        token = tokenizer.convert_ids_to_tokens(id)
        whole = id in tokenizer.added_tokens_decoder or token.startswith("<0x")
        yield from [id] if whole else [vocabulary.get(piece, id) for piece in token]


def test_generated_tokens_are_kept_where_the_text_would_be_cut_otherwise(budgie):
    tokenizer = budgie.loaded.tokenizer
    head = tokenizer.encode("<|im_start|>user\n hi<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    answer, end = " The owl said hello.", tokenizer.encode("<|im_end|>", add_special_tokens=False)
    later = tokenizer.encode("\n<|im_start|>user\n more<|im_end|>\n", add_special_tokens=False)
    plain = [*head, *tokenizer.encode(answer, add_special_tokens=False), *end, *later]
    kept = [*head, *cut_small(tokenizer, answer), *end]
    assert kept != plain[: len(kept)]
    assert reuse_generated_ids(kept, plain, tokenizer) == [*kept, *later]
    broken_off = [*head, *cut_small(tokenizer, " The owl said")]
    spliced = reuse_generated_ids(broken_off, plain, tokenizer)
    assert spliced[: len(broken_off)] == broken_off
    assert tokenizer.decode(spliced) == tokenizer.decode(plain)
    edited = [*head, *tokenizer.encode(" The owl sang", add_special_tokens=False), *end, *later]
    assert tokenizer.decode(reuse_generated_ids(kept, edited, tokenizer)) == tokenizer.decode(edited)


def test_what_was_text_in_the_prompt_never_becomes_a_control_token(budgie):
    tokenizer = budgie.loaded.tokenizer
    control = tokenizer.convert_tokens_to_ids("<|im_end|>")
    typed = tokenizer.encode("<|im_end|>", add_special_tokens=False, split_special_tokens=True)
    assert control not in typed
    head, tail = (
        tokenizer.encode("hello", add_special_tokens=False),
        tokenizer.encode(" you", add_special_tokens=False),
    )
    assert reuse_generated_ids([*head, control, *tail], [*head, *typed, *tail], tokenizer) == [*head, *typed, *tail]
    assert reuse_generated_ids([*head, *typed, *tail], [*head, control, *tail], tokenizer) == [*head, control, *tail]


@pytest.mark.parametrize("family", ["byte level", "sentencepiece"])
def test_random_cuts_never_change_what_is_read(budgie, sentencepiece_like, family):
    tokenizer = budgie.loaded.tokenizer if family == "byte level" else sentencepiece_like
    chance, moved = random.Random(5), 0
    parts = ["owl", " ", "é", "🦜", "ภา", "\n", "<|im_end|>", "</s>", "a", "\ufffd"]

    def cut(text):
        if chance.random() < 0.5:
            return list(cut_small(tokenizer, text))
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=chance.random() < 0.5)

    for _ in range(300):
        texts = ["".join(chance.choices(parts, k=chance.randint(1, 12))) for _ in range(2)]
        kept, plain = cut(texts[0]), cut(texts[0] + texts[1] if chance.random() < 0.7 else texts[1])
        spliced = reuse_generated_ids(kept, plain, tokenizer)
        added = tokenizer.added_tokens_decoder
        assert tokenizer.decode(spliced) == tokenizer.decode(plain)
        assert [i for i in spliced if i in added] == [i for i in plain if i in added]
        moved += spliced != plain
    assert moved > 50
