"""Each sampler does to fixed logits what its definition says, written here once more in plain Python."""

import json
import math
import random

import pytest
import torch

from parley.strategies.processors.order import expression, warper
from parley.strategies.processors.samplers.banned_words import BannedWords
from parley.strategies.processors.samplers.dry import Dry, common_lengths
from parley.strategies.processors.samplers.dynamic_temperature import DynamicTemperature
from parley.strategies.processors.samplers.logit_bias import LogitBias
from parley.strategies.processors.samplers.mirostat import Mirostat
from parley.strategies.processors.samplers.occurrence_penalties import FrequencyPenalty, PresencePenalty
from parley.strategies.processors.samplers.xtc import Xtc
from tests.conftest import ROOT

SIZE = 40  # tokens of the vocabulary
LOGITS = [2.5 * math.sin(1.7 * i) + 0.03 * i for i in range(SIZE)]
SCORES = torch.tensor([LOGITS])


def softmax(logits):
    weights = [math.exp(each - max(logits)) for each in logits]
    return [each / sum(weights) for each in weights]


@pytest.fixture(scope="module")
def tokenizer(budgie):
    return budgie.loaded.tokenizer


def test_presence_and_frequency_penalty_are_those_of_the_openai_api():
    answer = [3, 7, 3, 3, 9, 12]
    ids = torch.tensor([[1, 5, *answer]])  # 1 and 5 are the prompt
    counts = [answer.count(i) for i in range(SIZE)]
    presence = [logit - 0.7 * (count > 0) for logit, count in zip(LOGITS, counts, strict=True)]
    frequency = [logit - 0.4 * count for logit, count in zip(LOGITS, counts, strict=True)]
    assert PresencePenalty(0.7, 2)(ids, SCORES)[0].tolist() == pytest.approx(presence, abs=1e-6)
    assert FrequencyPenalty(0.4, 2)(ids, SCORES)[0].tolist() == pytest.approx(frequency, abs=1e-6)
    spared = FrequencyPenalty(0.4, 2, [3])(ids, SCORES)[0]
    assert spared[3] == SCORES[0, 3] and spared[7] < SCORES[0, 7]


def test_a_bias_is_added_and_the_others_stay():
    biased = LogitBias({4: -100.0, 9: 2.5})(torch.tensor([[1]]), SCORES.expand(2, -1))
    expected = [logit + {4: -100.0, 9: 2.5}.get(i, 0.0) for i, logit in enumerate(LOGITS)]
    assert biased[0].tolist() == biased[1].tolist() == pytest.approx(expected, abs=1e-5)


def dry_by_definition(ids, multiplier, base, allowed, breakers):
    """The penalty of each token, by trying all repetitions: see text-generation-webui's pull request 5677."""
    found = {}
    for end in range(len(ids) - 1):  # a repetition ends here, and the token behind it comes next
        length = 0
        while length <= end and ids[end - length] == ids[-1 - length] and ids[end - length] not in breakers:
            length += 1
        if length >= allowed and ids[end + 1] not in breakers:
            found[ids[end + 1]] = max(found.get(ids[end + 1], 0.0), multiplier * base ** (length - allowed))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_dry_penalises_what_would_go_on_with_a_repetition(tokenizer, seed):
    chance = random.Random(seed)
    newline, end = tokenizer.encode("\n")[0], tokenizer.eos_token_id
    ids = chance.choices(
        [*tokenizer.encode(" the owl said to lamps", add_special_tokens=False)[:4], newline, end], k=60
    )
    chosen = chance.choice([0.8, 2.0]), chance.choice([1.0, 1.3, 1.75]), chance.choice([1, 2, 3])
    scores = torch.zeros(1, len(tokenizer))
    penalised = Dry(*chosen, tokenizer)(torch.tensor([ids]), scores)[0]
    expected = dry_by_definition(ids, *chosen, {newline, end})
    assert {i: -float(penalised[i]) for i in penalised.nonzero()[:, 0].tolist()} == pytest.approx(expected, rel=1e-5)


def test_the_penalty_of_a_very_long_repetition_is_still_a_number(tokenizer):
    ids = torch.tensor([tokenizer.encode(" the", add_special_tokens=False)[:1] * 4000])
    assert Dry(5.0, 4.0, 1, tokenizer)(ids, torch.zeros(1, len(tokenizer))).isfinite().all()


def test_common_lengths_are_those_that_a_search_finds():
    ids = random.Random(1).choices([1, 2], k=80)
    for i, length in enumerate(common_lengths(ids)):
        assert not i or length == next((n for n in range(80 - i) if ids[n] != ids[i + n]), 80 - i)


@pytest.mark.parametrize("threshold", [0.01, 0.05, 0.1, 0.3])
def test_xtc_removes_the_top_choices_but_the_least_likely_of_them(threshold):
    p = softmax(LOGITS)
    order = sorted(range(SIZE), key=lambda i: -p[i])
    above = [i for i in order if p[i] >= threshold]
    removed = set(above[:-1]) if len(above) > 1 else set()  # `llama_sampler_xtc`
    scores = Xtc(1.0, threshold, seed=3)(torch.tensor([[1]]), SCORES)[0]
    assert {i for i in range(SIZE) if scores[i] == -math.inf} == removed
    assert all(scores[i] == SCORES[0, i] for i in set(range(SIZE)) - removed)


def test_xtc_acts_as_often_as_its_probability_says_and_equally_for_equal_seeds():
    one, same, other = (
        [bool((Xtc(0.3, 0.05, seed)(torch.ones(1, n), SCORES) == -math.inf).any()) for n in range(1, 2001)]
        for seed in (5, 5, 6)
    )
    assert one == same != other
    assert abs(sum(one) / 2000 - 0.3) < 0.035  # more than three standard deviations


@pytest.mark.parametrize(("temperature", "spread", "exponent"), [(0.8, 0.5, 1.0), (1.0, 1.0, 2.0), (0.5, 0.9, 0.5)])
def test_dynamic_temperature_follows_the_entropy(temperature, spread, exponent):
    p = softmax(LOGITS)
    entropy = -sum(each * math.log(each) for each in p)
    low, high = max(0.0, temperature - spread), temperature + spread
    by_entropy = low + (high - low) * (entropy / math.log(SIZE)) ** exponent  # `llama_sampler_temp_ext`
    scores = DynamicTemperature(temperature, spread, exponent)(torch.tensor([[1]]), SCORES)[0]
    assert scores.tolist() == pytest.approx([each / by_entropy for each in LOGITS], rel=1e-4)


def test_a_dynamic_temperature_of_zero_leaves_the_likeliest():
    certain = torch.tensor([[-math.inf, 3.0, -math.inf]])
    assert DynamicTemperature(0.5, 0.5, 1.0)(torch.tensor([[1]]), certain).argmax() == 1


def test_mirostat_follows_the_surprise_of_what_was_chosen():
    tau, eta, chance = 3.0, 0.2, random.Random(2)
    ours, ids, mu = Mirostat(tau, eta), torch.tensor([[1]]), 2 * tau
    for step in range(60):
        logits = [each * (1 + 0.5 * math.sin(step)) for each in LOGITS]
        p = softmax(logits)  # `llama_sampler_mirostat_v2`
        kept = [i for i in range(SIZE) if -math.log2(p[i]) <= mu] or [max(range(SIZE), key=lambda i: p[i])]
        scores = ours(ids, torch.tensor([logits]))[0]
        assert (scores > -math.inf).nonzero()[:, 0].tolist() == kept
        token = chance.choice(kept)
        mu -= eta * (-math.log2(p[token] / sum(p[i] for i in kept)) - tau)
        ids = torch.cat([ids, torch.tensor([[token]])], -1)


def test_a_banned_word_cannot_be_completed_whatever_its_tokens_are(tokenizer):
    banned = BannedWords(["owl"], tokenizer, 1)
    spelled = [tokenizer.encode(each, add_special_tokens=False)[-1] for each in ("o", "w", "l")]
    ids, scores = torch.tensor([[5, *spelled[:2]]]), torch.zeros(1, len(tokenizer))
    after = banned(ids, scores)[0]
    gone = {tokenizer.decode([i]) for i in (after == -math.inf).nonzero()[:, 0].tolist()}
    assert "l" in gone and " owl" in gone and "s" not in gone
    begun = banned(ids[:, 1:], scores)[0]  # now the "o" is the prompt
    assert begun[spelled[2]] == 0.0


def test_an_expression_makes_an_equal_processor():
    import transformers  # noqa: F401  (names of the expressions)

    made = [warper("top_k", 7, "cpu"), warper("eta_cutoff", 0.02, "cpu"), Xtc(0.5, 0.1, 3), Mirostat(5.0, 0.1)]
    known = {type(each).__name__: type(each) for each in made}
    for each in made:
        again = eval(expression(each), dict(known))
        assert expression(again) == expression(each)
        assert torch.equal(again(torch.tensor([[1]]), SCORES), each(torch.tensor([[1]]), SCORES))


def test_the_penalties_of_budgies_own_vocabulary_know_its_end(tokenizer):
    config = json.loads((ROOT / "parley" / "budgie" / "weights" / "generation_config.json").read_text())
    assert Dry(1.0, 1.75, 1, tokenizer)._breaks(int(config["eos_token_id"]))
