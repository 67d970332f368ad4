"""A model in the shape of a real one, for what cannot be had without the Hub: its weights are random and it says one
word again and again. That takes as long as any answer; what it says measures nothing.
"""

import re
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config
from transformers.models.qwen3 import Qwen3ForCausalLM

from benchmarks import real_model

QWEN3_600M = "Qwen3-0.6B shape, random weights"
SIZES = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "vocab_size": 151936}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}


def save(folder: Path) -> Path:
    """The shape of Qwen/Qwen3-0.6B, with the tokenizer of the real model, whose tokens it has and more."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(real_model.folder())
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES, **HEADS, tie_word_embeddings=True)).to(torch.bfloat16)
    teach(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def teach(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes it say a word of the tokenizer whatever it reads, so that its answers are text and never end.

    What the layers add to a token's embedding is made small, and the word's embedding is twice that of the token that
    opens an answer: the head, which is the embedding, finds it the likeliest after both. Every product is computed as
    before.
    """
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_dict=True
    )
    opening = asked["input_ids"][-1]
    word = next(id for id in range(len(tokenizer)) if re.fullmatch(" [a-z]{3,}", tokenizer.decode([id])))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(1e-3)
        embedding = model.get_input_embeddings().weight
        embedding[word] = 2 * embedding[opening]
    model.generation_config = GenerationConfig(pad_token_id=0)
