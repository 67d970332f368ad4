"""Writes the tiny models of the tests as GGUF files, in the layout of llama.cpp."""

import json

import gguf
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

PLUS_ONE = ("gemma3_text", "nemotron")  # whose norms are stored as 1 + weight
ARCHITECTURES = {"gemma3_text": "gemma3"}  # where llama.cpp has another name


def write(folder, file, kind="F32", *, architecture="", add=None, extra=None):
    """The model of a folder as one GGUF file with its tokenizer and chat template.

    `extra` are more entries of the metadata, all texts; `add` are more tensors.
    """
    config = AutoConfig.from_pretrained(folder)
    name = architecture or ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(file, name)
    _describe(writer, config)
    _vocabulary(writer, json.loads((folder / "tokenizer.json").read_text()))
    if (folder / "chat_template.jinja").is_file():
        writer.add_chat_template((folder / "chat_template.jinja").read_text())
    for key, text in (extra or {}).items():
        writer.add_string(key, text)
    for tensor, weight in {**_tensors(folder, config), **(add or {})}.items():
        quantised = gguf.GGMLQuantizationType[kind if weight.ndim == 2 and weight.shape[1] % 32 == 0 else "F32"]
        writer.add_tensor(tensor, gguf.quants.quantize(weight.float().numpy(), quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _describe(writer, config):
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name("Tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(getattr(config, "norm_eps", None) or config.norm_epsilon)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    writer.add_vocab_size(config.vocab_size)


def _vocabulary(writer, tokenizer):
    tokens = dict(tokenizer["model"]["vocab"]) | {each["content"]: each["id"] for each in tokenizer["added_tokens"]}
    control = {each["content"] for each in tokenizer["added_tokens"]}
    listed = sorted(tokens, key=tokens.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(listed)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if token in control else kinds.NORMAL for token in listed])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(tokens["<|im_end|>"])
    writer.add_pad_token_id(tokens["<|endoftext|>"])


def _tensors(folder, config):
    """Each weight once, by the name and in the layout of llama.cpp."""
    name = ARCHITECTURES.get(config.model_type, config.model_type)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, name.upper()), config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    found = {}
    for stored, weight in load_file(folder / "model.safetensors").items():
        layer = stored.split(".")[-2]
        laid_out = weight.to(torch.float32)
        if config.model_type == "llama" and layer in heads:
            laid_out = laid_out.view(heads[layer], 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        if config.model_type in PLUS_ONE and "norm" in layer and stored.endswith(".weight"):
            laid_out = laid_out + 1
        plain, _, suffix = stored.rpartition(".")
        found[f"{names.get_name(plain)}.{suffix}"] = laid_out
    return found
