"""Random models with every kind of cache layer, small enough to be made in a moment."""

from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    JambaConfig,
    JambaForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

# Wide enough that every token of the context decides, so that a wrong cache gives other tokens.
SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 768,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS = {"head_dim": 16}
MODELS = {
    "full": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "sliding": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=24)),
    "sliding and full": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SHAPE,
            **HEADS,
            sliding_window=40,
            layer_types=["sliding_attention", "full_attention"] * 2,
            query_pre_attn_scalar=16,
        )
    ),
    "convolution": lambda: Lfm2ForCausalLM(
        Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"] * 2, block_auto_adjust_ff_dim=False)
    ),
    "linear": lambda: Qwen3NextForCausalLM(
        Qwen3NextConfig(
            **SHAPE,
            **HEADS,
            layer_types=["linear_attention", "full_attention"] * 2,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            mlp_only_layers=[0, 1, 2, 3],
            num_experts=2,
            num_experts_per_tok=1,
        )
    ),
    "both in one layer": lambda: FalconH1ForCausalLM(
        FalconH1Config(
            **SHAPE, **HEADS, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=16, mamba_chunk_size=16
        )
    ),
}
# A state, but no code to go on from it with several tokens; no length of its own.
UNFIT = {
    "jamba": lambda: JambaForCausalLM(
        JambaConfig(
            **SHAPE,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=8,
            expert_layer_offset=7,
            num_experts=2,
            mamba_d_state=8,
            mamba_dt_rank=8,
        )
    ),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=2048, hidden_size=32, state_size=8, num_hidden_layers=2, eos_token_id=2, pad_token_id=0)
    ),
}
