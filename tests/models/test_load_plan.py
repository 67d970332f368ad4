"""How a model is run, by what the machine has and the owner wants; figures before loading."""

import os
from dataclasses import replace

import pytest
import torch

from parley.engines.checkpoint import Checkpoint
from parley.engines.transformers import loader as transformers_loader
from parley.engines.transformers import quantization
from parley.models import hardware, load_plan
from parley.models.hardware import Gpu, Machine
from parley.models.precision import PRECISIONS
from parley.models.spec import ModelSpec

ROW = ModelSpec("some/model", "some/model", "Some model")
CONFIG = {"model_type": "qwen3", "dtype": "bfloat16", "num_hidden_layers": 28, "num_attention_heads": 16}
CONFIG |= {"num_key_value_heads": 8, "head_dim": 128, "hidden_size": 1024, "vocab_size": 100_000}
CONFIG |= {"tie_word_embeddings": True, "max_position_embeddings": 40960}
LARGE, SMALL = 1_200_000_000, 6_000_000  # bytes: 600 M and 3 M parameters
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
CACHE = 2 * 28 * 8 * (128 + 8) * 1000  # bytes of 1,000 tokens in one byte a number, with a scale and a zero a head
# Bytes of the large one by OpenVINO in int8: twice the weights, and its layers.
HELD = 2 * 600_000_000 + 28 * 8_000_000
NEED = int(1.1 * HELD + CACHE * 8.192)  # with the least pool
GB = 10**9
AMPLE = 1000 * GB

CPU = Machine("cpu", threads=2)
NO_OPENVINO = replace(CPU, no_openvino="openvino is not installed")
VNNI = replace(NO_OPENVINO, has_vnni=True)
APPLE = Machine("mps")
T4, A100, L4, H100 = (
    Gpu(*each) for each in ((16 * GB, (7, 5)), (80 * GB, (8, 0)), (24 * GB, (8, 9)), (80 * GB, (9, 0)))
)
ZERO = Machine("cuda", (H100,), frozenset({"kernels", "flash_attn"}), zerogpu=True)


def gpu(*cards, packages=""):
    return Machine("cuda", cards, frozenset(packages.split()))


def considered(here, free=AMPLE, size=LARGE, config=CONFIG, **environ):
    return load_plan.choose_load_plan(ROW, config, size, lambda fit: free, here=here, environ=environ)


def decided(*given, **environ):
    estimate = considered(*given, **environ)
    assert estimate.fits
    return estimate.plan


def refusal(here, **given):
    estimate = considered(here, **given)
    assert not estimate.fits
    return estimate.sentence


@pytest.mark.parametrize(
    ("here", "config", "size", "environ", "chosen"),
    [
        # OpenVINO wherever it runs, in int8 but for small models, which are fast enough in floats.
        (CPU, CONFIG, LARGE, {}, ("openvino", "int8")),
        (CPU, CONFIG, SMALL, {}, ("openvino", "float32")),
        (replace(CPU, has_vnni=True), CONFIG, LARGE, {}, ("openvino", "int8")),
        # The owner decides.
        (CPU, CONFIG, LARGE, {"QUANTIZATION": "none"}, ("openvino", "float32")),
        (CPU, CONFIG, SMALL, {"QUANTIZATION": "int8"}, ("openvino", "int8")),
        (CPU, CONFIG, LARGE, {"ENGINE": "openvino"}, ("openvino", "int8")),
        (CPU, CONFIG, LARGE, {"ENGINE": "transformers"}, ("transformers", "float32")),
        (CPU, CONFIG, LARGE, {"ENGINE": "transformers", "QUANTIZATION": "int8"}, ("transformers", "int8")),
        (CPU, CONFIG, LARGE, {"ENGINE": " ", "QUANTIZATION": ""}, ("openvino", "int8")),
        # What OpenVINO does not run: no row for the family, a rotation that changes with the length, no library.
        (CPU, CONFIG | {"model_type": "qwen3_moe"}, LARGE, {}, ("transformers", "float32")),
        (CPU, CONFIG | {"rope_parameters": DYNAMIC}, LARGE, {}, ("transformers", "float32")),
        (NO_OPENVINO, CONFIG, LARGE, {}, ("transformers", "float32")),
        # There int8 layers are taken where they are faster than floats.
        (VNNI, CONFIG, LARGE, {}, ("transformers", "int8")),
        (VNNI, CONFIG, SMALL, {}, ("transformers", "float32")),
        (VNNI, CONFIG, LARGE, {"QUANTIZATION": "none"}, ("transformers", "float32")),
        # A GPU never asks OpenVINO.
        (ZERO, CONFIG, LARGE, {"ENGINE": "openvino"}, ("transformers", "bfloat16")),
        (APPLE, CONFIG, LARGE, {}, ("transformers", "float16")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,  # a set has another order in each process
)
def test_which_engine_runs_a_model_and_in_which_numbers(here, config, size, environ, chosen):
    fit = decided(here, size=size, config=config, **environ)
    assert (fit.engine, fit.numbers) == chosen


def test_what_does_not_fit_in_floats_is_made_int8_where_transformers_answers():
    assert decided(NO_OPENVINO, 2 * GB).numbers == "int8"
    assert decided(NO_OPENVINO, 3 * GB).numbers == "float32"


def test_floats_that_do_not_fit_are_refused_with_the_offer_of_int8():
    assert refusal(CPU, free=3 * GB, QUANTIZATION="none") == (
        "Some model needs about 7.4 GB of memory, and 3.0 GB are free. "
        "Set QUANTIZATION to int8, which needs 2.1 GB, or choose a smaller model."
    )
    assert "QUANTIZATION" not in refusal(CPU, free=GB, QUANTIZATION="none")  # it would not fit either


def test_what_openvino_has_refused_is_planned_for_transformers():
    estimate = load_plan.choose_load_plan(
        ROW, CONFIG, LARGE, lambda fit: AMPLE, here=CPU, environ={}, refused="it crashed"
    )
    assert (estimate.plan.engine, estimate.plan.numbers) == ("transformers", "float32")


@pytest.mark.parametrize(
    ("free", "context", "tokens"),
    [
        (AMPLE, 40960, load_plan.MAX_KV_TOKENS),
        (AMPLE, 2048, load_plan.KV_CONTEXTS * 2048),
        (3 * GB, 40960, 8192 + int((3 * GB - NEED) / 4 / CACHE * 1000)),
        (NEED, 40960, 8192),
        (NEED, 512, 512 + int((CACHE * (8192 - 512) // 1000) / 4 / CACHE * 1000)),
    ],
)
def test_the_pool_of_keys_and_values_gets_a_quarter_of_what_is_left_and_no_more_than_is_of_use(free, context, tokens):
    fit = decided(CPU, free, config=CONFIG | {"max_position_embeddings": context})
    assert fit.kv_tokens == pytest.approx(tokens, abs=2)


def test_the_owner_can_give_keys_and_values_less_but_not_less_than_one_context(monkeypatch):
    monkeypatch.setenv("MAX_CACHE_MEGABYTES", "2000")
    assert decided(CPU, AMPLE).kv_tokens == 2000 * 10**9 // CACHE < load_plan.MAX_KV_TOKENS
    monkeypatch.setenv("MAX_CACHE_MEGABYTES", "1")
    assert decided(CPU, AMPLE).kv_tokens == 8192


def test_on_apples_gpus_there_are_halves_only():
    assert (decided(APPLE).device, decided(APPLE).numbers) == ("mps", "float16")
    assert refusal(APPLE, QUANTIZATION="int8") == "QUANTIZATION is int8, which Apple GPUs do not have. Set it to auto."


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"QUANTIZATION": "int3"}, "QUANTIZATION is 'int3'. Set it to one of auto, none, int8, int4."),
        ({"QUANTIZATION": "INT8"}, "QUANTIZATION is 'INT8'. Set it to one of auto, none, int8, int4."),
        ({"QUANTIZATION": "int4"}, "QUANTIZATION is int4, which CPUs do not have. Set it to auto."),
        ({"ENGINE": "torch"}, "ENGINE is 'torch'. Set it to one of auto, openvino, transformers."),
        (
            {"ENGINE": "openvino"},
            "ENGINE is openvino, which cannot run this model: openvino is not installed. Set it to auto.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,  # a set has another order in each process
)
def test_what_is_not_possible_is_refused_with_what_is(environ, sentence):
    assert refusal(NO_OPENVINO, **environ) == sentence


def test_what_does_not_fit_is_refused_with_both_figures():
    assert refusal(CPU, free=GB, QUANTIZATION="int8") == (
        "Some model needs about 2.1 GB of memory, and 1.0 GB are free. Choose a smaller model."
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


def test_a_model_for_the_cpu_of_zerogpu_is_planned_for_it_and_for_no_other_gpu():
    row = replace(ROW, cpu_on_zerogpu=True)
    plans = [
        load_plan.choose_load_plan(row, CONFIG, LARGE, lambda fit: AMPLE, here=here, environ={}).plan
        for here in (ZERO, gpu(H100))
    ]
    assert [(plan.device, plan.engine) for plan in plans] == [("cpu", "openvino"), ("cuda", "transformers")]
    assert not plans[0].placed


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
        return load_plan.choose_load_plan(ROW, CONFIG, size, free, here=here, environ=environ)

    two = gpu(A100, A100, packages="accelerate bitsandbytes")
    assert [on(two, LARGE).plan.cards, on(two).plan.cards] == [1, 2]
    assert on(two).plan.numbers == "bfloat16"  # whole numbers lose more than a second card costs
    assert on(two, 5 * GB).plan.numbers == "int8"
    assert not on(gpu(A100, A100)).fits  # without accelerate there is one card
    assert on(two).sentence.startswith("2 GPUs, bfloat16, SDPA: 2.0 GB of memory")
    assert (on(two).plan.placed, on(two, LARGE).plan.placed) == (True, False)


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
        (NO_OPENVINO, "sdpa"),
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


def test_every_row_of_the_table_can_be_read_and_no_other():
    rows = {(row.by, row.name) for rows in PRECISIONS.values() for row in rows if row.by not in ("", "openvino")}
    assert rows == {*quantization.CONFIGS, ("parley", "int8")}


def test_transformers_is_asked_for_what_was_planned():
    assert quantization.arguments(decided(VNNI)) == {"dtype": "auto"}
    assert quantization.arguments(decided(NO_OPENVINO)) == {"dtype": "float32"}
    two = load_plan.choose_load_plan(
        ROW, CONFIG, LARGE, lambda fit: fit.cards * GB, here=gpu(T4, T4, packages="accelerate")
    ).plan
    assert quantization.arguments(two) == {"dtype": "float16", "device_map": "auto"}
    small = quantization.arguments(decided(gpu(H100, packages="accelerate kernels"), GB))
    assert small.pop("quantization_config").quant_method == "fp8"
    assert small == {"dtype": "bfloat16", "device_map": {"": 0}, "attn_implementation": "flash_attention_3"}


def test_an_attention_that_cannot_be_had_after_all_is_done_without(tiny, caplog):
    fit = decided(NO_OPENVINO)
    model, kept = transformers_loader.load(Checkpoint(ROW, tiny), replace(fit, attention="flash_attention_2"))
    assert kept == fit
    assert model.config._attn_implementation == "sdpa"
    assert "some/model is loaded without FlashAttention 2" in caplog.text


@pytest.mark.parametrize(
    ("quota", "threads"), [("max 100000\n", None), ("100000 100000\n", 1), ("150000 100000\n", 2), ("", None)]
)
def test_no_more_threads_compute_than_a_container_may_use(tmp_path, quota, threads, monkeypatch):
    monkeypatch.setattr(hardware, "THREADS_AT_START", 64)
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    usable = len(os.sched_getaffinity(0))
    assert hardware.cpu_threads(tmp_path) == min(usable, threads or usable)


@pytest.mark.parametrize(
    ("value", "obstacle"), [(None, ""), ("false", ""), ("close", "OMP_PROC_BIND would hold it to one thread")]
)
def test_where_the_environment_would_hold_openvino_to_one_thread_it_is_left_out_and_that_is_said(
    monkeypatch, caplog, value, obstacle
):
    if value:
        monkeypatch.setenv("OMP_PROC_BIND", value)
    assert hardware.machine.__wrapped__().no_openvino == obstacle
    assert [record.levelname for record in caplog.records] == (["WARNING"] if obstacle else [])


@pytest.mark.parametrize(
    ("machine", "capability", "obstacle"),
    [
        ("x86_64", "AVX2", ""),
        ("x86_64", "AVX512", ""),
        ("AMD64", "AVX2", ""),
        ("x86_64", "DEFAULT", "this processor has no AVX2"),
        ("arm64", "DEFAULT", ""),
        ("aarch64", "SVE256", ""),
    ],
)
def test_openvino_is_tried_wherever_there_is_a_wheel_of_it(monkeypatch, machine, capability, obstacle):
    monkeypatch.setattr(hardware.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert hardware.machine.__wrapped__().no_openvino == obstacle


def test_the_plan_says_all_that_it_decided_and_what_it_takes_in_one_line():
    def sentence(config=CONFIG, **environ):
        return load_plan.choose_load_plan(ROW, config, LARGE, lambda fit: 18 * GB, here=CPU, environ=environ).sentence

    assert sentence() == "CPU, int8, OpenVINO: 1.4 GB of memory, 61 MB more for each 1,000 tokens; 18.0 GB free."
    assert sentence({}, QUANTIZATION="none") == "CPU, 32-bit floats, SDPA: 2.4 GB of memory; 18.0 GB free."


def test_programs_get_the_figures_whether_it_fits_or_not():
    def figures(free, **environ):
        return load_plan.choose_load_plan(ROW, CONFIG, LARGE, lambda fit: free, here=CPU, environ=environ).figures

    known = {"weights": HELD, "needed": NEED, "per_1000_tokens": CACHE}
    assert figures(3 * GB, QUANTIZATION="int8") == {"fits": True, "free": 3 * GB, **known}
    assert figures(GB, QUANTIZATION="int8") == {"fits": False, "free": GB, **known}
    assert set(figures(GB, QUANTIZATION="int3").values()) == {False, None}
