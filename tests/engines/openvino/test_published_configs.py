"""Every model of the table for CPUs is run by OpenVINO, decided from its published `config.json`."""

import json

import pytest

from parley.models import load_plan, registry
from parley.models.hardware import Machine

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "is_llama_config": True,  # keys that the config class does not define
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "use_cache": True,
    "vocab_size": 49152,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def shape(hidden, intermediate, layers, heads, kv_heads):
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2 | shape(576, 1536, 30, 9, 3) | {"rope_theta": 100000},
    "HuggingFaceTB/SmolLM2-360M-Instruct": SMOLLM2 | shape(960, 2560, 32, 15, 5) | {"rope_theta": 100000},
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": SMOLLM2 | shape(2048, 8192, 24, 32, 32) | {"rope_theta": 130000},
    "Qwen/Qwen3-0.6B": QWEN3 | {"hidden_size": 1024, "intermediate_size": 3072},
    "Qwen/Qwen3-1.7B": QWEN3 | {"hidden_size": 2048, "intermediate_size": 6144},
    "allenai/OLMo-2-0425-1B-Instruct": shape(2048, 8192, 16, 16, 16)
    | {
        "architectures": ["Olmo2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": 100257,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "model_type": "olmo2",
        "pad_token_id": 100277,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "vocab_size": 100352,
    },
}
CPU_ROWS = [row for row in registry.MODELS if row.engine == "local" and row.tier == "cpu"]


def test_every_model_of_the_table_for_cpus_is_looked_at():
    assert {row.id for row in CPU_ROWS} == set(PUBLISHED)


@pytest.mark.parametrize("row", CPU_ROWS, ids=lambda row: row.name)
def test_openvino_runs_it(row):
    here = Machine("cpu", threads=2)
    assert load_plan.engine_obstacle(PUBLISHED[row.id], here, {}) == ""
    estimate = load_plan.choose_load_plan(row, PUBLISHED[row.id], row.bytes, lambda fit: 10**11, here=here, environ={})
    assert (estimate.plan.engine, estimate.plan.numbers) == ("openvino", "int8")


def test_the_real_model_s_own_file_is_one_that_openvino_runs(real_model):
    config = json.loads((real_model / "config.json").read_text())
    assert load_plan.engine_obstacle(config, Machine("cpu"), {}) == ""
