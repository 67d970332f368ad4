"""Our own decoding loops, against what defines them: the search that they extend, and the strategy's promise."""

import pytest
import torch

from parley.strategies.decoders.beams import BeamHypotheses
from parley.strategies.decoders.constrained_beams import Progress, constrained_beams
from parley.strategies.decoders.contrastive import contrastive
from parley.strategies.decoders.diverse_beams import diverse_beams
from parley.strategies.decoders.dola import dola, early_layers
from parley.strategies.decoders.observed_beam_search import observed_beam_search

QUESTIONS = ["Hello, who are you?", "Tell me a story about an owl.", "What is the capital of Japan?"]


@pytest.fixture(scope="module")
def model(budgie):
    return budgie.loaded.model


@pytest.fixture(scope="module")
def tokenizer(budgie):
    return budgie.loaded.tokenizer


def nothing(_):
    """Takes what a loop reports."""


@pytest.fixture(scope="module")
def answer(model, tokenizer):
    """The token ids of an answer, without those that end it."""

    def generate(question, **settings):
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = model.generate(**prompt, **({"max_new_tokens": 32, "do_sample": False} | settings))
        ends = set(tokenizer.all_special_ids)
        return [token for token in made[0, prompt["input_ids"].shape[1] :].tolist() if token not in ends]

    return generate


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("settings", [{"num_beams": 4}, {"num_beams": 2, "length_penalty": -1.0}], ids=str)
def test_watching_a_beam_search_changes_nothing_and_ends_with_what_it_returns(answer, tokenizer, question, settings):
    steps = []
    watched = answer(question, **settings, custom_generate=observed_beam_search, on_beams=steps.append)
    assert watched == answer(question, **settings)
    ends = set(tokenizer.all_special_ids)
    assert [token for token in steps[-1][0].ids.tolist() if token not in ends] == watched
    assert len(steps) > 3 and all(1 <= len(step) <= 2 * settings["num_beams"] for step in steps)


@pytest.mark.parametrize("limit", range(3, 24, 4))
@pytest.mark.parametrize("loop", [observed_beam_search, diverse_beams, constrained_beams])
def test_wherever_the_token_limit_is_the_last_hypotheses_begin_with_the_answer(answer, tokenizer, loop, limit):
    rest = {
        diverse_beams: {"beam_groups": 2, "diversity_penalty": 0.5},
        constrained_beams: {"phrases": [tuple(tokenizer.encode("Tokyo", add_special_tokens=False))]},
    }
    steps = []
    options = {"num_beams": 4, "length_penalty": 3.0, "max_new_tokens": limit, **rest.get(loop, {})}
    returned = answer(QUESTIONS[2], **options, custom_generate=loop, on_beams=steps.append)
    ends = set(tokenizer.all_special_ids)
    assert [token for token in steps[-1][0].ids.tolist() if token not in ends] == returned


@pytest.mark.parametrize("limit", [3, 14, 32])
@pytest.mark.parametrize("penalty", [-1.0, 1.0])
def test_the_next_best_answers_are_those_of_transformers_too(model, answer, tokenizer, limit, penalty):
    """With `num_return_sequences`; and one group of a diverse search is the same search."""
    chat = [{"role": "user", "content": QUESTIONS[2]}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    options = {"num_beams": 4, "length_penalty": penalty, "max_new_tokens": limit}
    made = model.generate(**prompt, **options, do_sample=False, num_return_sequences=4)
    ends = set(tokenizer.all_special_ids)

    def written(rows):
        return [[token for token in row if token not in ends] for row in rows]

    wanted = written(made[:, prompt["input_ids"].shape[1] :].tolist())
    assert len(set(map(tuple, wanted))) > 1
    for loop, more in (observed_beam_search, {}), (diverse_beams, {"beam_groups": 1, "diversity_penalty": 0.0}):
        steps = []
        answer(QUESTIONS[2], **options, **more, custom_generate=loop, on_beams=steps.append)
        assert written(each.ids.tolist() for each in steps[-1][:4]) == wanted


def test_beam_sampling_can_be_watched_and_repeats_with_its_seed(answer):
    def sampled(**watch):
        torch.manual_seed(3)
        return answer(QUESTIONS[1], num_beams=3, do_sample=True, temperature=1.5, **watch)

    assert sampled(custom_generate=observed_beam_search, on_beams=nothing) == sampled() == sampled()


@pytest.mark.parametrize("question", QUESTIONS)
def test_contrastive_search_without_a_penalty_is_greedy(answer, question):
    loop = {"custom_generate": contrastive, "on_token": nothing, "candidates": 4}
    assert answer(question, penalty_alpha=0.0, **loop) == answer(question)


def test_contrastive_search_with_nothing_but_the_penalty_takes_what_is_least_like_the_prompt(answer, model, tokenizer):
    chat = [{"role": "user", "content": QUESTIONS[0]}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        candidates = model(**prompt).logits[0, -1].topk(5).indices
        similar = []
        for token in candidates:
            ids = torch.cat([prompt["input_ids"], token.view(1, 1)], dim=-1)
            states = torch.nn.functional.normalize(model(ids, output_hidden_states=True).hidden_states[-1][0], dim=-1)
            similar.append(float((states[:-1] @ states[-1]).max()))
    expected = int(candidates[similar.index(min(similar))])
    loop = {"custom_generate": contrastive, "on_token": nothing, "candidates": 5, "penalty_alpha": 1.0}
    assert answer(QUESTIONS[0], max_new_tokens=1, **loop) == [expected]


@pytest.mark.parametrize(
    ("count", "tied", "which", "layers"),
    [
        (6, True, "low", [2]),
        (6, False, "low", [0, 2]),
        (6, True, "high", [3, 5]),
        (32, False, "low", [*range(0, 16, 2)]),
        (32, True, "high", [*range(16, 32, 2)]),
        (48, False, "low", [*range(0, 20, 2)]),
        (48, False, "high", [*range(28, 48, 2)]),
        (4, True, "low", [2]),
    ],
)
def test_dola_looks_at_every_second_layer_of_one_half(count, tied, which, layers):
    assert early_layers(count, tied, which) == layers


def test_dola_streams_every_token_that_it_returns(answer):
    tokens = []
    made = answer(
        QUESTIONS[2], dola_layers="high", custom_generate=dola, on_token=lambda t: tokens.extend(t[0].tolist())
    )
    assert tokens[: len(made)] == made


@pytest.mark.parametrize("question", QUESTIONS)
def test_one_group_is_a_plain_beam_search(answer, question):
    groups = {"beam_groups": 1, "diversity_penalty": 0.0}
    loop = {"custom_generate": diverse_beams, "on_beams": nothing}
    assert answer(question, num_beams=4, **groups, **loop) == answer(question, num_beams=4)


def test_groups_begin_differently_with_a_high_diversity_penalty(answer):
    steps = []
    groups = {"num_beams": 4, "beam_groups": 4, "diversity_penalty": 100.0}
    answer(QUESTIONS[0], **groups, custom_generate=diverse_beams, on_beams=steps.append)
    assert len({int(h.ids[0]) for h in steps[0]}) == 4


@pytest.mark.parametrize("words", [[" lantern"], [" window", " river boat"]], ids=str)
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_words_that_must_occur_do(answer, tokenizer, words, question):
    phrases = [tuple(tokenizer.encode(word, add_special_tokens=False)) for word in words]
    loop = {"custom_generate": constrained_beams, "on_beams": nothing, "phrases": phrases}
    text = tokenizer.decode(answer(question, num_beams=4, **loop))
    assert all(word in text for word in words)


def test_progress_continues_a_phrase_and_restarts_when_it_breaks():
    start = Progress(((1, 2), (3,)))
    assert start.next_tokens == [1, 3]
    begun = start.add(1)
    assert begun.next_tokens == [2] and begun.bank(2) == 1
    broken = begun.add(9)
    assert broken.pending == ((3,), (1, 2)) and broken.bank(2) == 0
    assert start.after([9, 1, 2]).done == 1
    done = start.after([3, 1, 2, 7])
    assert done.complete and done.next_tokens == [] and done.bank(2) == 4


def test_only_the_best_finished_answers_are_kept():
    finished = BeamHypotheses(2, length_penalty=1.0)
    for token, score in enumerate([-3.0, -1.0, -2.0, -4.0]):
        finished.add(torch.tensor([token]), score)
    assert [h.score for h in finished.hypotheses] == [-2.0, -1.0]
    assert finished.is_done(-2.5) and not finished.is_done(-1.5)
    assert finished.score(-6.0, 3) == -2.0
