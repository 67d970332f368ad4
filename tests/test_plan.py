"""How a model is run, by what the machine has and the owner wants; figures before loading."""

import threading
from dataclasses import replace

import pytest
import torch

from parley.engines import hardware, loading, plan, quantisers
from parley.engines.hardware import Card, Machine
from parley.engines.hub import ModelRow
from parley.engines.loading import load
from parley.engines.precision import PRECISIONS
from tests.hub_standin import WEIGHTS, save_tiny_model

ROW = ModelRow("some/model", "some/model", "Some model")
CONFIG = {"model_type": "qwen3", "dtype": "bfloat16", "num_hidden_layers": 28, "num_attention_heads": 16}
CONFIG |= {"num_key_value_heads": 8, "head_dim": 128, "hidden_size": 1024, "vocab_size": 100_000}
CONFIG |= {"tie_word_embeddings": True}
LARGE, SMALL = 1_200_000_000, 6_000_000  # bytes: 600 M and 3 M parameters
GB = 10**9
AMPLE = 1000 * GB

CPU = Machine("cpu", multiplies_bytes=True, unpacks_nibbles=True, compiles=True)
OLD_CPU = Machine("cpu")
APPLE = Machine("mps", compiles=True)
T4, A100, L4, H100 = (
    Card(*each) for each in ((16 * GB, (7, 5)), (80 * GB, (8, 0)), (24 * GB, (8, 9)), (80 * GB, (9, 0)))
)
ZERO = Machine("cuda", (H100,), frozenset({"kernels", "flash_attn"}), compiles=True, zerogpu=True)


def gpu(*cards, packages=""):
    return Machine("cuda", cards, frozenset(packages.split()), compiles=True)


def considered(here, free=AMPLE, size=LARGE, config=CONFIG, **environ):
    return plan.consider(ROW, config, size, lambda fit: free, here=here, environ=environ)


def decided(*given, **environ):
    outlook = considered(*given, **environ)
    assert outlook.fits
    return outlook.fit


def refusal(here, **given):
    outlook = considered(here, **given)
    assert not outlook.fits
    return outlook.sentence


def test_a_cpu_with_the_instructions_takes_one_byte_a_weight_where_it_pays():
    assert [decided(here).numbers for here in (CPU, OLD_CPU)] == ["int8", "float32"]
    assert decided(CPU, size=SMALL).numbers == "float32"


def test_the_owner_decides():
    assert decided(CPU, QUANTIZATION="none").dtype == "float32"
    assert decided(CPU, size=SMALL, QUANTIZATION="int8").quantization == "int8"
    assert decided(CPU, QUANTIZATION="int4").quantization == "int4"
    assert (
        decided(CPU, QUANTIZATION="", COMPILE=" ") == decided(CPU, QUANTIZATION="auto", COMPILE="auto") == decided(CPU)
    )


def test_what_does_not_fit_in_floats_is_loaded_in_half_of_them():
    assert decided(CPU, 2 * GB, QUANTIZATION="none").dtype == "bfloat16"


def test_on_apples_gpus_there_are_halves_only():
    assert (decided(APPLE).device, decided(APPLE).numbers) == ("mps", "float16")
    assert refusal(APPLE, QUANTIZATION="int8") == "QUANTIZATION is int8, which Apple GPUs do not have. Set it to auto."


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"QUANTIZATION": "int3"}, "QUANTIZATION is 'int3'. Set it to one of auto, none, int8, int4."),
        ({"QUANTIZATION": "INT8"}, "QUANTIZATION is 'INT8'. Set it to one of auto, none, int8, int4."),
        (
            {"QUANTIZATION": "int4"},
            "QUANTIZATION is int4, which needs a processor with AVX2 instructions. Set it to auto.",
        ),
        ({"COMPILE": "yes"}, "COMPILE is 'yes'. Set it to one of auto, off, on."),
    ],
    ids=lambda value: value if isinstance(value, str) else None,  # a set has another order in each process
)
def test_what_cannot_be_had_is_said_with_what_can(environ, sentence):
    assert refusal(OLD_CPU, **environ) == sentence


def test_what_does_not_fit_is_refused_with_both_figures():
    assert refusal(CPU, free=GB, QUANTIZATION="int8") == (
        "Some model needs about 1.4 GB of memory, and 1.0 GB are free. Choose a smaller model."
    )


@pytest.mark.parametrize(
    ("card", "dtype"), [(T4, "float16"), (A100, "bfloat16"), (L4, "bfloat16"), (H100, "bfloat16")]
)
def test_a_gpu_computes_in_the_halves_that_its_cards_are_made_for(card, dtype):
    assert decided(gpu(card)).numbers == dtype
    assert decided(gpu(T4, card)).numbers == "float16"


ALL = "accelerate bitsandbytes torchao kernels"


@pytest.mark.parametrize(
    ("card", "packages", "free", "chosen"),
    [
        (H100, ALL, 2 * GB, ("none", "")),
        (H100, ALL, GB, ("fp8", "torchao")),
        (H100, "accelerate kernels bitsandbytes", GB, ("fp8", "transformers")),
        (L4, "accelerate torchao", GB, ("fp8", "torchao")),
        (A100, ALL, GB, ("int8", "bitsandbytes")),
        (A100, "accelerate torchao", GB, ("int8", "torchao")),
        (A100, ALL, 700_000_000, ("int4", "torchao")),
        (T4, ALL, 700_000_000, ("int4", "bitsandbytes")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,  # a set has another order in each process
)
def test_what_does_not_fit_on_a_gpu_is_made_smaller_by_what_is_installed(card, packages, free, chosen):
    fit = decided(gpu(card, packages=packages), free)
    assert (fit.quantization, fit.by) == chosen


def test_what_is_not_installed_is_not_offered_but_named_with_its_command():
    assert refusal(gpu(A100), free=GB) == (
        "Some model needs about 1.4 GB of memory, and 1.0 GB are free. Choose a smaller model."
    )
    assert refusal(gpu(A100), QUANTIZATION="int8") == (
        "QUANTIZATION is int8, which needs accelerate and bitsandbytes: pip install accelerate bitsandbytes "
        "(or accelerate and torchao: pip install accelerate torchao). Set it to auto."
    )
    assert "pip install bitsandbytes" in refusal(gpu(T4, packages="accelerate"), QUANTIZATION="int4")


def test_a_model_is_spread_over_the_cards_only_where_one_does_not_hold_it():
    def free(fit):
        return fit.cards * 2 * GB  # two on each card

    def on(here, size=2 * GB, **environ):
        return plan.consider(ROW, CONFIG, size, free, here=here, environ=environ)

    two = gpu(A100, A100, packages="accelerate bitsandbytes")
    assert [on(two, LARGE).fit.cards, on(two).fit.cards] == [1, 2]
    assert on(two).fit.numbers == "bfloat16"  # whole numbers lose more than a second card costs
    assert on(two, 5 * GB).fit.numbers == "int8"
    assert not on(gpu(A100, A100)).fits  # without accelerate there is one card
    assert on(two).sentence.startswith("2 GPUs, bfloat16, SDPA: 2.0 GB of memory")
    assert (on(two).fit.placed, on(two, LARGE).fit.placed) == (True, False)
    assert [on(two, size, COMPILE="on").fit.compiled for size in (LARGE, 2 * GB)] == [True, False]


QUANTISED = CONFIG | {"quantization_config": {"quant_method": "mxfp4"}}


def test_weights_that_are_quantised_already_stay_as_they_are():
    fit = decided(gpu(H100, packages="accelerate kernels"), config=QUANTISED, QUANTIZATION="int8")
    assert (fit.numbers, fit.quantization, fit.weights, fit.placed) == ("quantised", "none", LARGE, True)
    assert fit.sentence.startswith("GPU, as it was quantised, FlashAttention 3: 1.2 GB of memory")
    assert refusal(gpu(H100, packages="accelerate"), config=QUANTISED) == (
        "This model is quantised with mxfp4, which needs kernels: pip install kernels."
    )


@pytest.mark.parametrize(
    ("here", "attention"),
    [
        (CPU, "sdpa"),
        (APPLE, "sdpa"),
        (gpu(H100), "sdpa"),
        (gpu(H100, packages="flash_attn_interface flash_attn"), "flash_attention_3"),
        (gpu(H100, packages="flash_attn"), "flash_attention_2"),
        (gpu(A100, packages="flash_attn_interface"), "sdpa"),
        (gpu(A100, packages="kernels"), "flash_attention_2"),
        (gpu(A100, T4, packages="kernels flash_attn"), "sdpa"),
        (ZERO, "sdpa"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,  # a set has another order in each process
)
def test_the_attention_is_what_card_and_packages_allow(here, attention):
    assert decided(here).attention == attention


@pytest.mark.parametrize(
    ("model_type", "attention"),
    [("llama", "flash_attention_2"), ("mamba", "eager"), ("gpt_oss", "eager"), ("gemma2", "flash_attention_2")],
)
def test_the_attention_is_one_that_the_architecture_has(model_type, attention):
    assert decided(gpu(A100, packages="flash_attn"), config=CONFIG | {"model_type": model_type}).attention == attention


def test_compiling_is_for_those_who_ask_and_where_it_can_be_done():
    assert not any(decided(here).compiled for here in (CPU, APPLE, gpu(H100), ZERO))
    assert all(decided(here, COMPILE="on").compiled for here in (CPU, gpu(H100)))
    assert "which ZeroGPU does not allow. Set it to off." in refusal(ZERO, COMPILE="on")
    assert "which Apple's GPUs are not made for" in refusal(APPLE, COMPILE="on")
    without = (
        "needs a C++ compiler and the headers of Python: apt install g++ python3-dev, or the like. Set it to off."
    )
    assert without in refusal(OLD_CPU, COMPILE="on")
    assert "and Triton" in refusal(replace(gpu(H100), compiles=False), COMPILE="on")


def test_every_row_of_the_table_can_be_read_and_no_other():
    rows = {(row.by, row.name) for rows in PRECISIONS.values() for row in rows if row.by}
    assert rows == set(quantisers.CONFIGS) | set(quantisers.LAYERS)


def test_transformers_is_asked_for_what_was_planned():
    assert quantisers.arguments(decided(CPU)) == {"dtype": "auto"}
    assert quantisers.arguments(decided(OLD_CPU)) == {"dtype": "float32"}
    two = plan.consider(ROW, CONFIG, LARGE, lambda fit: fit.cards * GB, here=gpu(T4, T4, packages="accelerate")).fit
    assert quantisers.arguments(two) == {"dtype": "float16", "device_map": "auto"}
    small = quantisers.arguments(decided(gpu(H100, packages="accelerate kernels"), GB))
    assert small.pop("quantization_config").quant_method == "fp8"
    assert small == {"dtype": "bfloat16", "device_map": {"": 0}, "attn_implementation": "flash_attention_3"}


def test_an_attention_that_cannot_be_had_after_all_is_done_without(tiny, caplog):
    fit = decided(OLD_CPU)
    model, kept = loading._model(ROW, tiny, replace(fit, attention="flash_attention_2"))
    assert kept == fit
    assert model.config._attn_implementation == "sdpa"
    assert "some/model is loaded without FlashAttention 2" in caplog.text


def test_this_machine_finds_its_compiler_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not hardware.machine.__wrapped__().compiles
    assert hardware.machine().device == hardware.device()


def test_the_plan_says_all_that_it_decided_and_what_it_takes_in_one_line():
    def sentence(config=CONFIG, **environ):
        return plan.consider(ROW, config, LARGE, lambda fit: 18 * GB, here=CPU, environ=environ).sentence

    assert sentence() == "CPU, int8, SDPA: 805 MB of memory, 229 MB more for each 1,000 tokens; 18.0 GB free."
    assert sentence({}, QUANTIZATION="none", COMPILE="on") == (
        "CPU, 32-bit floats, SDPA, compiled: 2.4 GB of memory; 18.0 GB free."
    )


def test_programs_get_the_figures_whether_it_fits_or_not():
    def figures(free, **environ):
        return plan.consider(ROW, CONFIG, LARGE, lambda fit: free, here=CPU, environ=environ).figures

    cache = 2 * 28 * 8 * 128 * 4 * 1000
    known = {"weights": 804_800_000, "needed": 1_440_000_000, "per_1000_tokens": cache}
    assert figures(2 * GB, QUANTIZATION="int8") == {"fits": True, "free": 2 * GB, **known}
    assert figures(GB, QUANTIZATION="int8") == {"fits": False, "free": GB, **known}
    assert set(figures(GB, QUANTIZATION="int3").values()) == {False, None}


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_take_what_the_plan_says(tmp_path, quantization, tied, monkeypatch):
    if not hardware.machine().unpacks_nibbles and quantization == "int4":
        pytest.skip("for processors with AVX2")
    monkeypatch.setenv("QUANTIZATION", quantization)
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 8}
    folder = save_tiny_model(tmp_path / "model", tie_word_embeddings=tied, **sizes)
    loaded = load(ModelRow("m", str(folder), "Tiny"), lambda _: None, threading.Event())
    assert loaded.fit.quantization == quantization
    assert loaded.model.get_memory_footprint() == pytest.approx(loaded.fit.weights, rel=0.05)
    assert (folder / WEIGHTS).stat().st_size * 1.2 <= loaded.fit.need + 10_000


def test_a_plan_knows_the_keys_and_values_of_a_thousand_tokens(budgie):
    text = budgie.loaded.model.config
    ids = torch.ones(1, 100, dtype=torch.long)
    with torch.inference_mode():
        cache = budgie.loaded.model(ids, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert plan.kv_bytes(text.to_dict(), 4) == 10 * held
