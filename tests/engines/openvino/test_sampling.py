"""What is drawn is what the library would draw: the same token for the same seed, whatever is left to draw from."""

import math
import random

import pytest

pytest.importorskip("openvino")

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from parley.generation.generation_config import plan_generation
from parley.generation.prompt import render_prompt
from parley.settings import Settings
from parley.strategies.decoders.sampling import MAX_KEPT, Sampler
from parley.strategies.processors.repetition_penalty import RepetitionPenalty
from parley.strategies.processors.samplers.top_n_sigma import TopNSigma
from tests.engines.openvino.asking import SHORT, answer

HOT = {"temperature": 1.3, "top_k": 0, "top_p": 1.0}
SETTINGS = {
    "temperature": 0.9,
    "top_k": 30,
    "top_p": 0.9,
    "min_p": 0.05,
    "typical_p": 0.8,
    "top_n_sigma": 2.0,
    "top_h": 0.7,
    "epsilon_cutoff": 0.005,
    "eta_cutoff": 0.005,
    "repetition_penalty": 1.4,
    "no_repeat_ngram_size": 2,
}
TOKENS = 5


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 20), marks=pytest.mark.slow)], ids=["four", "rest"])
@pytest.mark.parametrize("name", SETTINGS)
def test_for_twenty_seeds_the_text_is_that_of_generate(budgie, torch_budgie, name, seeds):
    values = HOT | {name: SETTINGS[name]}
    own = {
        "top_n_sigma": TopNSigma,
        "repetition_penalty": lambda penalty: RepetitionPenalty(penalty, model.generation_config.eos_token_id),
    }
    stock = {key: value for key, value in values.items() if key not in own}
    model, tokenizer = torch_budgie.loaded.model, torch_budgie.loaded.tokenizer
    ours = LogitsProcessorList([make(values[key]) for key, make in own.items() if key in values])
    prompt = render_prompt(torch_budgie.loaded, SHORT, Settings.check({"max_new_tokens": TOKENS})).ids
    said = set()
    for seed in seeds:
        torch.manual_seed(seed)
        made = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            max_new_tokens=TOKENS,
            logits_processor=ours,
            **stock,
        )[0, prompt.shape[1] :]
        drawn = answer(budgie, SHORT, strategy="sampling", seed=seed, max_new_tokens=TOKENS, **values)
        assert drawn.text == tokenizer.decode(made, skip_special_tokens=True).lstrip()
        assert drawn.usage.new_tokens == len(made)
        said.add(drawn.text)
    assert len(said) > 1


SAMPLERS = {
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": -0.7},
    "dry": {"dry_multiplier": 2.0, "dry_allowed_length": 1},
    "xtc": {"xtc_probability": 0.7, "xtc_threshold": 0.05, "top_k": 40},
    "dynatemp": {"dynatemp_range": 0.8, "dynatemp_exponent": 0.7, "top_p": 0.9},
    "mirostat": {"mirostat_tau": 2.0, "mirostat_eta": 0.4},
    "logit_bias": {"logit_bias": {" the": -4, " owl": 3.5}},
    "bad_words": {"bad_words": ["owl", "the"]},
    "min_new_tokens": {"min_new_tokens": 12},
    "all": {
        "presence_penalty": 0.3,
        "dry_multiplier": 0.8,
        "xtc_probability": 0.5,
        "dynatemp_range": 0.3,
        "top_k": 30,
    },
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_each_sampler_the_text_is_that_of_generate_with_the_same_processors(budgie, torch_budgie, name):
    """The own loop with drafts on the graph, and the loop of the library on the torch model."""
    model, tokenizer, said = torch_budgie.loaded.model, torch_budgie.loaded.tokenizer, set()
    for seed in range(3):
        values = {"strategy": "sampling", "seed": seed, "max_new_tokens": 16, **HOT, **SAMPLERS[name]}
        settings = Settings.check(values)
        prompt = render_prompt(torch_budgie.loaded, SHORT, settings)
        plan = plan_generation(torch_budgie.loaded, settings.effective_strategy, settings, prompt)
        torch.manual_seed(seed)
        made = model.generate(
            prompt.ids,
            attention_mask=torch.ones_like(prompt.ids),
            generation_config=GenerationConfig(**plan.config),
            logits_processor=LogitsProcessorList(plan.processors),
        )[0, prompt.length :]
        drawn = answer(budgie, SHORT, **values)
        assert drawn.text == tokenizer.decode(made, skip_special_tokens=True).lstrip()
        assert drawn.usage.new_tokens == len(made)
        said.add(drawn.text)
    assert len(said) > 1


def processors(chance):
    """Some, in the order of `generate`."""
    chosen = [TemperatureLogitsWarper(chance.uniform(0.3, 2.0))]
    if chance.random() < 0.8:
        chosen.append(TopKLogitsWarper(chance.choice([1, 2, 20, 50, MAX_KEPT - 1, MAX_KEPT, MAX_KEPT + 1])))
    others = [
        TopPLogitsWarper(chance.uniform(0.05, 1.0)),
        MinPLogitsWarper(chance.uniform(0.001, 0.3)),
        TypicalLogitsWarper(chance.uniform(0.1, 0.99)),
    ]
    return LogitsProcessorList([*chosen, *(each for each in others if chance.random() < 0.4)])


def test_five_hundred_draws_are_those_of_torch_and_leave_the_generator_as_torch_does():
    """The draws of one generator follow each other, so one number too many or too few would spoil all that come."""
    chance, numbers = random.Random(0), torch.Generator().manual_seed(0)
    ours, theirs = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    said = torch.tensor([[1, 2, 3]])
    for _ in range(500):
        logits = chance.choice([0.5, 3.0, 8.0]) * torch.randn(1, 2500, generator=numbers)
        if chance.random() < 0.3:  # what a grammar or an n-gram forbids
            logits[0, : chance.randrange(2499)] = -math.inf
        chosen = processors(chance)
        expected = int(torch.multinomial(chosen(said, logits).softmax(-1), 1, generator=theirs))
        assert Sampler(chosen, True, ours)(said, logits) == expected
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_without_a_generator_the_global_one_draws():
    logits, said = torch.randn(1, 2500), torch.tensor([[1]])
    for chosen in (LogitsProcessorList(), LogitsProcessorList([TopKLogitsWarper(40)])):
        torch.manual_seed(7)
        expected = [int(torch.multinomial(chosen(said, logits).softmax(-1), 1)) for _ in range(20)]
        torch.manual_seed(7)
        assert [Sampler(chosen, True)(said, logits) for _ in range(20)] == expected


def test_greedy_search_takes_the_likeliest_and_draws_nothing():
    generator = torch.Generator().manual_seed(1)
    before, logits = generator.get_state(), torch.randn(3, 1, 2500)
    choose = Sampler(LogitsProcessorList(), False, generator)
    assert [choose(torch.tensor([[1]]), each) for each in logits] == logits[:, 0].argmax(-1).tolist()
    assert torch.equal(generator.get_state(), before)
