"""The graph of each family computes what transformers computes, past every window, in pieces and token by token."""

import pytest

pytest.importorskip("openvino")

from transformers import AutoModelForCausalLM

from parley.models.families import FAMILIES
from tests.engines.openvino.decoders import ONE_BY_ONE, distance, expected, run, save, written

WINDOW = {"sliding_window": 40}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 64}
MIXED = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
FULL = ["full_attention"] * 4
GRANITE = {"embedding_multiplier": 6.0, "attention_multiplier": 0.2, "residual_multiplier": 0.3, "logits_scaling": 4.0}
ROPES = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e3}}
CASES = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "llama, biases": {"attention_bias": True, "mlp_bias": True},
    "llama, heads of another size": {"head_dim": 24},
    "llama, one key and value for each head": {"num_key_value_heads": 4},
    "llama, llama3 rope": {"rope_parameters": LLAMA3},
    "llama, yarn": {"rope_parameters": YARN},
    "llama, linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "mistral": WINDOW,
    "mistral, no window": {"sliding_window": None},
    "qwen2": {},
    "qwen2, tied": {"tie_word_embeddings": True},
    "qwen2, windows": {"use_sliding_window": True, "max_window_layers": 2, **WINDOW},
    "qwen3": {"head_dim": 32},
    "qwen3, biases and windows": {
        "attention_bias": True,
        "use_sliding_window": True,
        "max_window_layers": 1,
        **WINDOW,
    },
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "smollm3, windows": {"use_sliding_window": True, "no_rope_layers": [1, 0, 0, 1], **WINDOW},
    "smollm3, every second layer without rope": {"no_rope_layer_interval": 2},
    "granite": GRANITE,
    "olmo2": {},
    "olmo2, biases": {"attention_bias": True},
    "olmo3": WINDOW,
    "olmo3, yarn in full layers": {
        "layer_types": MIXED,
        "rope_parameters": {**ROPES, "full_attention": YARN},
        **WINDOW,
    },
    "phi3": {},
    "phi3, half of a head turned, window": {"partial_rotary_factor": 0.5, **WINDOW},
    "gemma3_text": {"head_dim": 32, "layer_types": MIXED, **WINDOW},
    "gemma3_text, another scale": {
        "query_pre_attn_scalar": 9,
        "layer_types": MIXED,
        "rope_parameters": {**ROPES, "full_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}},
        **WINDOW,
    },
    "iquestcoder": {"head_dim": 24},
    "internlm3": {"head_dim": 24},
    "internlm3, biases": {"head_dim": 24, "attention_bias": True, "mlp_bias": True},
    "seed_oss": {"head_dim": 32},
    "seed_oss, biases": {"head_dim": 16, "attention_bias": True, "attention_out_bias": True, "mlp_bias": True},
    "ministral": {"head_dim": 16, **WINDOW},
    "ministral, mixed layers": {"layer_types": MIXED, "head_dim": 32, **WINDOW},
    "cwm": {"head_dim": 16, **WINDOW},
    "hyperclovax": GRANITE,
    "hyperclovax, no norms after": {"use_post_norm": False, "attention_bias": True},
    "olmo": {},
    "exaone4": WINDOW,
    "exaone4, no window": {"sliding_window": None, "layer_types": FULL},
    "exaone4, full layers beside a window": {"layer_types": FULL, **WINDOW},
    "gemma": {"head_dim": 32},
    "gemma, not tied, biases": {"head_dim": 16, "tie_word_embeddings": False, "attention_bias": True},
    "helium": {"head_dim": 16},
    "helium, biases": {"head_dim": 16, "attention_bias": True, "mlp_bias": True},
    "ernie4_5": {"head_dim": 32},
    "ernie4_5, biases": {"head_dim": 16, "use_bias": True, "tie_word_embeddings": False},
    "glm": {"head_dim": 32},
    "glm, a quarter of a head turned, no biases": {
        "head_dim": 32,
        "attention_bias": False,
        "partial_rotary_factor": 0.25,
    },
    "glm4": {"head_dim": 32},
    "glm4, whole heads turned": {"head_dim": 16, "partial_rotary_factor": 1.0},
    "cohere": {},
    "cohere, not tied, biases": {"tie_word_embeddings": False, "attention_bias": True, "logit_scale": 3.0},
    "cohere2": WINDOW,
    "cohere2, no rotation at all": {"layer_types": FULL, **WINDOW},
    "stablelm": {},
    "stablelm, biases": {"use_qkv_bias": True, "partial_rotary_factor": 0.5},
    "arcee": {},
    "arcee, biases, yarn": {"attention_bias": True, "mlp_bias": True, "rope_parameters": YARN},
    "nemotron": {},
    "nemotron, biases": {"attention_bias": True, "mlp_bias": True, "head_dim": 32},
    "jais2": {},
    "jais2, no biases": {"attention_bias": False, "mlp_bias": False},
    "starcoder2": {},
    "starcoder2, window, no biases": {"use_bias": False, "hidden_act": "gelu", **WINDOW},
}
# Between them these have all that a graph is made of.
EACH_PART = {"llama", "qwen3", "granite", "olmo3", "phi3", "gemma3_text", "glm4", "cohere2", "nemotron", "stablelm"}


def test_each_family_has_a_case():
    assert {case.split(",")[0] for case in CASES} == set(FAMILIES)


@pytest.mark.parametrize("case", [n if n in EACH_PART else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_a_family_is_equal_but_for_rounding(case, tmp_path):
    theirs = expected(save(tmp_path, case.split(",")[0], **CASES[case]))
    ours = run(written(tmp_path))
    logits, hidden = theirs.logits[0], theirs.hidden_states[-1][0]
    assert distance(ours.logits[:ONE_BY_ONE], logits[:ONE_BY_ONE]) < 1e-5
    assert distance(ours.logits[ONE_BY_ONE:], logits[ONE_BY_ONE:]) < 1e-5
    assert distance(ours.hidden, hidden) < 1e-5


@pytest.mark.parametrize("case", ["llama", pytest.param("gemma3_text", marks=pytest.mark.slow)])
def test_the_head_reads_states_between_the_layers(case, tmp_path):
    model = save(tmp_path, case, **CASES[case])
    theirs = expected(model)
    ours = run(written(tmp_path, early=(1, 3)), early=2)
    head = model.get_output_embeddings()
    assert distance(ours.early[0], head(theirs.hidden_states[1])) < 1e-5
    assert distance(ours.early[1], head(theirs.hidden_states[3])) < 1e-5
    assert distance(ours.logits, theirs.logits) < 1e-5


def test_a_graph_of_the_first_layers_is_the_smaller_model(tmp_path):
    save(tmp_path, "gemma3_text", **CASES["gemma3_text"])
    smaller = AutoModelForCausalLM.from_pretrained(tmp_path, num_hidden_layers=3, layer_types=MIXED[:3])
    assert distance(run(written(tmp_path, layers=3)).logits, expected(smaller).logits) < 1e-5


def test_int8_weights_stay_near(tmp_path):
    theirs = expected(save(tmp_path, "qwen3", **CASES["qwen3"]))
    away = distance(run(written(tmp_path, "int8")).logits, theirs.logits)
    assert 1e-5 < away < 0.05


def test_the_writer_says_how_far_it_is_and_can_be_stopped(tmp_path):
    save(tmp_path, "llama")
    steps = []

    def progress(done, of):
        steps.append((done, of))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        written(tmp_path, progress=progress)
    assert steps == [(1, 4), (2, 4)]
