"""Which sessions the prefix cache remembers, and which it gives up."""

import torch
from transformers import GenerationConfig

from parley.generation.prefix_cache import LeaseRequest, NoPrefixCache, PrefixCache


def acquire(model, prefixes, session, prompt):
    """A turn that reads the prompt and generates nothing more than one token; how much was cached."""
    with (
        torch.inference_mode(),
        prefixes.acquire(LeaseRequest(session, prompt, 1, len(prompt) + 1, lambda: [7])) as loan,
    ):
        ids, once = torch.tensor([prompt]), GenerationConfig(max_new_tokens=1, do_sample=False)
        model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=once, **loan.arguments)
    return loan.cached_tokens


def test_two_turns_of_one_session_at_once_do_not_share(torch_budgie):
    prefixes = PrefixCache(torch_budgie.loaded.model, max_bytes=lambda: 10**9)
    prompt = list(range(100, 140))
    acquire(torch_budgie.loaded.model, prefixes, "a", prompt)
    with (
        prefixes.acquire(LeaseRequest("a", prompt, 1, 60, lambda: [])) as first,
        prefixes.acquire(LeaseRequest("a", prompt, 1, 60, lambda: [])) as second,
    ):
        assert (first.cached_tokens, second.cached_tokens) == (39, 0)
        assert first.arguments["past_key_values"] is not second.arguments["past_key_values"]


def test_the_longest_unused_goes_when_the_bytes_are_more_than_allowed(torch_budgie):
    model = torch_budgie.loaded.model
    config, most = model.config, [10**9]
    prefixes = PrefixCache(model, max_bytes=lambda: most[0])
    prompt = list(range(100, 150))
    for session in "abc":
        acquire(model, prefixes, session, prompt)
    each = 2 * 50 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert prefixes.bytes == 3 * each
    most[0] = 3 * each
    assert acquire(model, prefixes, "a", prompt) == 49  # now b is the longest unused
    acquire(model, prefixes, "d", prompt)
    assert prefixes.bytes == 3 * each
    assert [bool(prefixes.sequence(session)) for session in "abcd"] == [True, False, True, True]
    most[0] = each - 1
    acquire(model, prefixes, "c", prompt)
    assert prefixes.bytes == 0


def test_the_null_form_remembers_nothing():
    nothing = NoPrefixCache()
    for _ in range(2):
        with nothing.acquire(LeaseRequest("a", [1, 2, 3], 1, 10, lambda: [4])) as loan:
            assert (loan.cached_tokens, loan.arguments) == (0, {})
        assert nothing.sequence("a") == ()
