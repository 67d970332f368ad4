"""Speculative sampling keeps the distribution of the model, and a draft model that is like it is mostly accepted."""

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from parley.strategies.decoders.speculative import speculative

VOCABULARY, RUNS = 6, 500
P_VALUE = 1e-3  # of the chi-square test, with a fixed seed


def tiny(seed):
    """A random model, whose distributions are far from even."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **sizes)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data *= 12
    model.generation_config.pad_token_id = 0
    return model


def drawn(model, draft, runs):
    """How often each pair of tokens follows a prompt, and how many of the drafts were accepted."""
    counts, drafts = torch.zeros(VOCABULARY, VOCABULARY), []
    config = {"do_sample": True, "temperature": 0.9, "top_k": 5, "max_new_tokens": 3, "num_assistant_tokens": 2}
    config |= {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0, "pad_token_id": 0}
    torch.manual_seed(7)
    for _ in range(runs):
        made = model.generate(
            torch.tensor([[1, 2, 3]]),
            attention_mask=torch.ones(1, 3, dtype=torch.long),
            generation_config=GenerationConfig(**config),
            custom_generate=speculative,
            draft=draft,
            on_token=lambda _: None,
            on_draft=lambda *numbers: drafts.append(numbers),
        )
        counts[tuple(made[0, 3:5].tolist())] += 1
    drafted, accepted = map(sum, zip(*drafts, strict=True))
    return counts, accepted / drafted


@torch.no_grad()
def exact(model):
    """The probability of each pair by the model alone, after the same temperature and top-k."""

    def after(ids):
        logits = model(torch.tensor([ids])).logits[0, -1] / 0.9
        return logits.masked_fill(logits < logits.topk(5).values[-1], -torch.inf).double().softmax(-1)

    first = after([1, 2, 3])
    return torch.stack([first[i] * after([1, 2, 3, i]) for i in range(VOCABULARY)])


def chi_square(counts, expected):
    """The p-value of Pearson's test, where rare pairs are one class."""
    common = expected >= 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None].clamp_min(1e-9)])
    statistic, freedom = ((observed - wanted) ** 2 / wanted).sum(), len(wanted) - 1
    return float(torch.special.gammaincc(torch.tensor(freedom / 2).double(), statistic / 2))


@pytest.mark.slow
def test_the_pairs_have_the_distribution_of_the_model_and_not_of_the_draft():
    model, draft = tiny(1), tiny(2)
    counts, accepted = drawn(model, draft, RUNS)
    assert chi_square(counts, exact(model) * RUNS) > P_VALUE > chi_square(counts, exact(draft) * RUNS)
    assert 0.02 < accepted < 0.9


def test_drafts_of_the_model_itself_are_all_accepted():
    model = tiny(1)
    _, accepted = drawn(model, tiny(1), 40)
    assert accepted > 0.8  # the draft model has the temperature twice
