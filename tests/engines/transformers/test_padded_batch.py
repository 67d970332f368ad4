"""A padded pass gives each call the logits and the cache that it would get alone, for every architecture that pads."""

import inspect

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from parley.engines.transformers import padded_batch
from parley.engines.transformers.padded_batch import batchable, pads, run, understood
from tests.standins.positions import CASES, SIZES, config_of
from tests.standins.tiny_models import MODELS

UNPADDED = {
    "phi3",
    "phi3, window",
    "phi3, plain rope",
    "phimoe",
    "llama, longrope",
    "olmo3, longrope in full layers",
    "mistral, window",
    "gemma3_text",
    "llama4_text, chunks",
    "deepseek_v32, index",
}
OTHERS = ["qwen3", "olmo2", "granite", "stablelm", "gpt_neox", "opt", "git", "roformer"]  # without a case of their own
STEPS = [(5, 19), (1, 3), (17, 1), (1, 1)]  # new tokens of two calls, pass by pass


def make(case):
    torch.manual_seed(1)
    config = config_of(case) if case in CASES else AutoConfig.for_model(case, **SIZES)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def new_cache(model):
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def given(model, ids, cache, **more):
    """The arguments of a call that continues the cache, as `generate` would give them."""
    end = cache.get_seq_length() + ids.shape[1]
    more |= {"attention_mask": torch.ones(len(ids), end, dtype=torch.long), "use_cache": True}
    if "position_ids" in inspect.signature(model.forward).parameters:
        more["position_ids"] = torch.arange(end - ids.shape[1], end).expand(len(ids), -1)
    return {"input_ids": ids, "past_key_values": cache, **more}


@torch.inference_mode()
def compare(model, steps=STEPS, sequences=(1, 2)):
    """The largest difference of the logits, and the caches of the calls alone and together."""
    chance, worst = torch.Generator().manual_seed(1), 0.0
    alone, shared = ([new_cache(model) for _ in sequences] for _ in range(2))
    for counts in steps:
        shapes = zip(sequences, counts, strict=True)
        ids = [torch.randint(3, 90, shape, generator=chance) for shape in shapes]
        expected = [model(**given(model, each, cache)).logits for each, cache in zip(ids, alone, strict=True)]
        calls = [batchable(given(model, each, cache)) for each, cache in zip(ids, shared, strict=True)]
        outputs = run(model.forward, tuple(inspect.signature(model.forward).parameters), calls)
        worst = max(
            worst,
            *(float((x - y.logits).abs().max() / x.std()) for x, y in zip(expected, outputs, strict=True)),
        )
    return worst, alone, shared


@pytest.mark.parametrize("case", [*CASES, *OTHERS])
def test_which_architectures_pad_and_that_those_get_their_own_logits(case):
    model = make(case)
    assert pads(model) == (case not in UNPADDED | {"git", "roformer"})
    if not pads(model):
        return
    worst, alone, shared = compare(model)
    assert worst < 1e-4
    for one, other in zip(alone, shared, strict=True):
        assert one.get_seq_length() == other.get_seq_length()
        for a, b in zip(one.layers, other.layers, strict=True):
            if a.is_initialized:
                torch.testing.assert_close(a.keys, b.keys, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(a.values, b.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "full"])
def test_no_model_with_a_window_or_a_state_pads(name):
    assert not pads(MODELS[name]())


def test_a_mask_that_does_not_hide_the_padding_is_noticed():
    model = make("llama, default")
    forward = model.forward

    def unmasked(**arguments):
        return forward(**(arguments | {"attention_mask": torch.ones_like(arguments["attention_mask"])}))

    unmasked.__signature__ = inspect.signature(forward)
    assert compare(model)[0] < 1e-4
    model.forward = unmasked
    assert compare(model)[0] > 0.01


def test_what_is_not_understood_runs_by_itself():
    model = make("llama, default")
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    plain = given(model, ids, new_cache(model))
    assert understood(plain)
    padding = torch.tensor([[0, 1, 1], [1, 1, 1]])
    others = {
        "attention_mask": padding,
        "position_ids": torch.tensor([[0, 1, 2], [0, 0, 1]]),
        "past_key_values": None,
        "inputs_embeds": torch.zeros(2, 3, 32),
        "logits_to_keep": torch.tensor([1]),
        "use_cache": False,
        "return_dict": False,
    }
    for name, value in others.items():
        assert not understood(plain | {name: value}), name


def test_a_pass_that_fails_in_a_layer_is_undone():
    model, caches = make("llama, default"), []
    model.forward_names = tuple(inspect.signature(model.forward).parameters)
    with torch.inference_mode():
        for count in (7, 3):
            cache = new_cache(model)
            model(**given(model, torch.arange(3, 3 + count)[None], cache))
            caches.append(cache)
        calls = [batchable(given(model, torch.tensor([[5, 6]]), cache)) for cache in caches]
        before = [[layer.keys.clone() for layer in cache.layers] for cache in caches]

        def fail(*_):
            raise RuntimeError("the library failed")

        hook = model.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError):
            padded_batch.run(model.forward, model.forward_names, calls)
        hook.remove()
        assert calls[0].cache.layers[0].get_seq_length() == 9
        for call, length in zip(calls, (7, 3), strict=True):
            call.undo(length)
    for cache, keys in zip(caches, before, strict=True):
        assert all(torch.equal(layer.keys, kept) for layer, kept in zip(cache.layers, keys, strict=True))
