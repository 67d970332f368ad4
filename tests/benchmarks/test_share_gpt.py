"""The mix of lengths is the same for the same seed, has the means that it names, and fits the model."""

import statistics

import pytest

from benchmarks import share_gpt
from parley.messages import Message
from tests.engines.openvino.asking import answer

CONTEXT = 2048  # tokens


@pytest.fixture
def tokenizer(budgie):
    return budgie.loaded.tokenizer


def test_a_seed_gives_the_same_conversations(tokenizer):
    made = share_gpt.conversations(tokenizer, 20, seed=1)
    assert made == share_gpt.conversations(tokenizer, 20, seed=1)
    assert made != share_gpt.conversations(tokenizer, 20, seed=2)


def test_the_lengths_have_the_published_means_scaled(tokenizer):
    asked = [each for talk in share_gpt.conversations(tokenizer, 2000, seed=0) for each in talk]
    prompts = [len(tokenizer.encode(each.text, add_special_tokens=False)) for each in asked]
    assert statistics.mean(each.new for each in asked) == pytest.approx(share_gpt.MEAN_ANSWER, rel=0.1)
    assert statistics.mean(prompts) == pytest.approx(share_gpt.MEAN_PROMPT, rel=0.15)  # the longest are cut


def test_every_conversation_fits_and_some_have_several_turns(tokenizer):
    talks = share_gpt.conversations(tokenizer, 300, seed=0)
    read = [share_gpt.tokens(tokenizer, talk) for talk in talks]
    assert {len(talk) for talk in talks} == {1, 2, 3}
    longest = max(sum(map(len, ids)) + sum(q.new for q in talk) for ids, talk in zip(read, talks, strict=True))
    assert longest <= CONTEXT


def test_a_first_question_is_read_as_the_engine_reads_it(budgie):
    talk = share_gpt.conversations(budgie.loaded.tokenizer, 1, seed=3)[0]
    said = answer(budgie, [Message("user", talk[0].text)], max_new_tokens=1)
    assert said.usage.prompt_tokens == len(share_gpt.tokens(budgie.loaded.tokenizer, talk)[0])
