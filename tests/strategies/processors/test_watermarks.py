"""Watermarks, against the library's own, against their definitions, and against chance."""

import copy
import functools

import pytest
import torch
from transformers import GenerationConfig, SynthIDTextWatermarkingConfig, WatermarkingConfig

from parley.errors import BadSetting
from parley.strategies.processors.watermark_detection import Detection
from parley.strategies.processors.watermarks import GreenList, SynthID, detect

VOCABULARY = 2048  # Budgie's
GREEN, SYNTH = GreenList(key=11, bias=4.0), SynthID(key=11)
MARKS = [GREEN, SYNTH]
SEEDS = [1, 2]


def stock(mark):
    if mark is GREEN:
        return WatermarkingConfig(greenlist_ratio=0.25, bias=4.0, hashing_key=11)
    return SynthIDTextWatermarkingConfig(ngram_len=5, keys=SYNTH.keys)


@pytest.fixture(scope="module")
def generate(endless):
    """The output of `generate` for one question."""
    chat = [{"role": "user", "content": "Tell me a story about an owl."}]
    tokenizer = endless.loaded.tokenizer
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)

    def output(mark, seed, **settings):
        torch.manual_seed(seed)
        settings = {"do_sample": True, "temperature": 1.5, "top_p": 1.0, "watermarking_config": mark} | settings
        made = endless.loaded.model.generate(
            **prompt, **settings, return_dict_in_generate=True, output_scores=True, pad_token_id=0
        )
        made.sequences = made.sequences[:, prompt["input_ids"].shape[1] :]
        return made

    return output


@pytest.fixture(scope="module")
def answer(generate, endless):
    """The token ids of a long answer; special ones, which a mark would not outlive, are kept from it."""
    special = endless.loaded.tokenizer.all_special_ids

    @functools.cache
    def ids(mark, seed):
        return generate(mark, seed, max_new_tokens=160, suppress_tokens=special).sequences[0].tolist()

    return ids


def random_ids(seed, length):
    return torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("mark", MARKS, ids=repr)
@pytest.mark.parametrize("settings", [{}, {"top_k": 20}, {"do_sample": False}, {"num_return_sequences": 3}], ids=str)
def test_on_a_cpu_the_tokens_and_their_scores_are_the_librarys_to_the_bit(generate, mark, settings):
    ours, theirs = (generate(config, 5, max_new_tokens=24, **settings) for config in (mark, stock(mark)))
    assert torch.equal(ours.sequences, theirs.sequences)
    assert all(torch.equal(mine, other) for mine, other in zip(ours.scores, theirs.scores, strict=True))
    assert not torch.equal(ours.scores[-1], generate(None, 5, max_new_tokens=24, **settings).scores[-1])


def test_green_lists_of_beams_are_the_librarys(generate):
    ours, theirs = (generate(config, 5, max_new_tokens=24, num_beams=3) for config in (GREEN, stock(GREEN)))
    assert torch.equal(ours.sequences, theirs.sequences)


def test_a_row_that_a_beam_search_moves_is_marked_as_if_it_were_alone():
    rows = torch.tensor([random_ids(seed, 16) for seed in range(3)])
    scores = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(0))
    alone = [stock(SYNTH).construct_processor(VOCABULARY, "cpu") for _ in rows]
    together = SYNTH.construct_processor(VOCABULARY, "cpu")
    for end in range(6, 17):
        expected = torch.cat([alone[i](rows[i : i + 1, :end], scores[i : i + 1]) for i in range(3)])
        moved = torch.randperm(3, generator=torch.Generator().manual_seed(end))
        assert torch.equal(together(rows[moved, :end], scores[moved]), expected[moved])


def test_tokens_that_a_draft_takes_back_are_forgotten():
    scores = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0))
    ids, draft = torch.tensor([random_ids(0, 12)]), torch.tensor([random_ids(1, 4)])
    plain, drafted = (SYNTH.construct_processor(VOCABULARY, "cpu") for _ in range(2))
    for end in range(4, 13):
        expected = plain(ids[:, :end], scores)
        assert torch.equal(drafted(ids[:, :end], scores), expected)
        assert not torch.equal(drafted(torch.cat([ids[:, :end], draft], dim=1), scores), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_a_gpu_marks_the_tokens_that_a_cpu_detects(mark):
    scores = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([random_ids(seed, 12) for seed in range(2)])
    on_gpu, on_cpu = (mark.construct_processor(VOCABULARY, device) for device in ("cuda", "cpu"))
    for end in range(4, 13):
        marked = on_gpu(ids[:, :end].cuda(), scores.cuda())
        assert marked.is_cuda
        torch.testing.assert_close(marked.cpu(), on_cpu(ids[:, :end], scores))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_a_marked_answer_is_detected_with_its_key_and_with_no_other(answer, mark, seed):
    ids = answer(mark, seed)
    assert detect(mark, ids, VOCABULARY).marked
    others = [GreenList(key, bias=4.0) if mark is GREEN else SynthID(key) for key in range(100, 108)]
    assert not any(detect(other, ids, VOCABULARY).marked for other in others)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_a_mark_outlives_being_text(answer, endless, mark, seed):
    tokenizer = endless.loaded.tokenizer
    text = tokenizer.decode(answer(mark, seed))
    assert detect(mark, tokenizer.encode(text, add_special_tokens=False), VOCABULARY).marked


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_an_ordinary_answer_is_not_marked(answer, mark, seed):
    found = detect(mark, answer(None, seed), VOCABULARY)
    assert found.scored > 60 and not found.marked


@pytest.mark.slow
@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_random_texts_are_hardly_ever_taken_for_marked(mark):
    found = [detect(mark, random_ids(seed, 40), VOCABULARY) for seed in range(250)]
    assert sum(each.marked for each in found) <= 2
    assert abs(sum(each.z for each in found) / 250) < 0.2
    assert 0.75 < sum(each.z**2 for each in found) / 250 < 1.25


@pytest.mark.slow
def test_a_higher_bias_is_easier_to_detect(answer):
    none, low, high = (
        sum(detect(GREEN, answer(mark, seed), VOCABULARY).z for seed in SEEDS)
        for mark in (None, GreenList(key=11, bias=1.5), GREEN)
    )
    assert none < low < high


@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_a_text_without_enough_context_is_not_scored(mark):
    for length in range(mark.context + 1):
        found = detect(mark, random_ids(0, length), VOCABULARY)
        assert found == Detection(scored=0, z=0.0, p=1.0) and not found.marked
    assert detect(mark, random_ids(0, mark.context + 1), VOCABULARY).scored == 1


@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_a_repeated_text_counts_once(mark):
    assert detect(mark, random_ids(0, 50) * 4, VOCABULARY).scored == 50


def test_four_green_tokens_are_no_proof_and_twelve_are():
    def all_green(length):
        ids, processor = torch.tensor([[7]]), GREEN.construct_processor(VOCABULARY, "cpu")
        for _ in range(length):
            unsaid = torch.zeros(1, VOCABULARY).scatter(1, ids, -torch.inf)
            ids = torch.cat([ids, processor(ids, unsaid).argmax(-1, keepdim=True)], dim=1)
        return detect(GREEN, ids[0].tolist(), VOCABULARY)

    four, twelve = all_green(4), all_green(12)
    assert four.scored == 4 and four.p == pytest.approx(0.25**4) and not four.marked
    assert twelve.scored == 12 and twelve.p == pytest.approx(0.25**12) and twelve.marked


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_a_green_list_is_its_ratio_of_the_vocabulary_and_rises_by_the_bias(ratio):
    scores = torch.zeros(2, VOCABULARY)
    scores[:, :100] = -torch.inf
    marked = GreenList(key=5, bias=1.5, greenlist_ratio=ratio).construct_processor(VOCABULARY, "cpu")
    after = marked(torch.tensor([[3, 8], [3, 9]]), scores)
    assert (after[:, :100] == -torch.inf).all() and set(after[:, 100:].unique().tolist()) == {0.0, 1.5}
    assert (marked(torch.tensor([[8]]), torch.zeros(1, VOCABULARY)) == 1.5).sum() == ratio * VOCABULARY
    assert not torch.equal(after[0], after[1])


@pytest.mark.slow
def test_over_all_keys_synthid_changes_no_probability():
    probabilities = torch.tensor([[0.5, 0.25, 0.15, 0.1, 0.0]])
    ids, total = torch.tensor([[1, 2, 3]]), torch.zeros(1, 5)
    for key in range(1, 1001):
        marked = SynthID(key).construct_processor(5, "cpu")(ids, probabilities.log()).softmax(-1)
        assert marked[0, 4] == 0.0
        total += marked
    torch.testing.assert_close(total / 1000, probabilities, atol=0.05, rtol=0.0)


@pytest.mark.parametrize("mark", [*MARKS, GreenList(key=3, bias=0.5, greenlist_ratio=0.5)], ids=repr)
def test_a_mark_is_written_as_python_that_makes_it_again(mark):
    assert eval(repr(mark)) == mark == copy.deepcopy(mark)


def test_marks_of_other_values_are_other_marks():
    marks = [
        GREEN,
        GreenList(key=12, bias=4.0),
        GreenList(key=11, bias=3.0),
        GreenList(11, 4.0, 0.5),
        SYNTH,
        SynthID(12),
    ]
    assert all((a == b) == (a is b) for a in marks for b in marks)


@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_a_generation_config_takes_a_mark_and_can_be_used_again(generate, mark):
    config = GenerationConfig(watermarking_config=mark, do_sample=True, max_new_tokens=12)
    config.validate(strict=True)
    assert copy.deepcopy(config).watermarking_config == mark
    assert "watermarking_config" in config.to_json_string()
    first, second = (generate(mark, 1, max_new_tokens=12).sequences for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("key", [0, -1, 2**32])
@pytest.mark.parametrize("make", [lambda key: GreenList(key, bias=2.0), SynthID], ids=["GreenList", "SynthID"])
def test_a_key_that_would_mark_like_another_is_refused(make, key):
    with pytest.raises(BadSetting, match=f"cannot be {key}. Choose one from 1 to"):
        make(key)
