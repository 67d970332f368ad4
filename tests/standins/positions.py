"""Configs of tiny models: every kind of positions, and every architecture that knows places in a way of its own."""

from transformers import AutoConfig

from parley.positions import ROPES
from tests.standins.tiny_models import HEADS, SHAPE

FIRST, CONTEXT = 96, 512  # tokens of the first window, and of the whole
SIZES = SHAPE | {"max_position_embeddings": CONTEXT, "num_hidden_layers": 2}
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [1 + 1.5 * i for i in range(8)]}
PARAMETERS = {  # of each row of `ROPES`
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": FIRST,
    },
    "yarn": {"factor": 5.0, "original_max_position_embeddings": FIRST},
    "proportional": {"factor": 2.0, "partial_rotary_factor": 0.5},
    "longrope": {"original_max_position_embeddings": FIRST, **FACTORS},
    "dynamic": {"factor": 4.0},
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
PHI = {"original_max_position_embeddings": FIRST}


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **PARAMETERS[kind], **more}}


# By the architecture: each kind, and each way in which an architecture knows places without RoPE.
CASES = {
    "phi3": rope("longrope") | PHI,
    "phi3, window": rope("longrope") | PHI | {"sliding_window": 40},
    "phi3, plain rope": PHI,
    "phimoe": rope("longrope", short_mscale=1.1, long_mscale=1.3) | PHI | EXPERTS,
    **{f"llama, {kind}": rope(kind) for kind in ROPES if kind != "dynamic"},
    "olmo3, longrope in full layers": {
        "rope_parameters": {
            "full_attention": rope("longrope")["rope_parameters"],
            "sliding_attention": rope("default")["rope_parameters"],
        },
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 40,
    },
    "mistral, window": {"sliding_window": 40},
    "gemma3_text": HEADS | {"sliding_window": 40, "layer_types": ["sliding_attention", "full_attention"]},
    "llama4_text, chunks": HEADS
    | {
        "attention_chunk_size": 40,
        "layer_types": ["chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0],
        "floor_scale": 64,
        "num_local_experts": 2,
        "intermediate_size_mlp": 64,
    },
    "smollm3, no positions": {"no_rope_layers": [0, 0]},
    "ministral3, scaled queries": HEADS | rope("yarn", llama_4_scaling_beta=0.5),
    "deepseek_v32, index": {
        "index_topk": 24,
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
        "moe_intermediate_size": 16,
        "num_key_value_heads": 2,
    },
    "bloom, ALiBi": {"n_head": 2, "n_layer": 2},
    "falcon, ALiBi": {"alibi": True},
    "mpt, ALiBi": {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": CONTEXT},
    "gpt2, learned": {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": CONTEXT},
    "gpt_neo, learned, windows": {
        "num_heads": 2,
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 40,
    },
    "roberta, learned from the padding on": {"is_decoder": True},
    "xglm, sinusoids": {"d_model": 32, "attention_heads": 2, "num_layers": 2, "ffn_dim": 64},
    "gptj, sinusoids": {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": CONTEXT, "rotary_dim": 8},
}
QUICK = {"phi3", "mistral, window", "bloom, ALiBi"}


def config_of(case):
    return AutoConfig.for_model(case.split(",")[0], **SIZES | CASES[case])
