"""What layers of one byte a weight give on this CPU, beside 32-bit floats: `python -m benchmarks.int8 [ROUNDS]`.

Decoding, reading a prompt, and memory, of random weights in the shapes of SmolLM2-135M and Qwen3-0.6B. Both models lie
in one process and take turns, so that their ratio holds on a busy machine too.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, PreTrainedModel, Qwen3Config
from transformers.models.llama import LlamaForCausalLM
from transformers.models.qwen3 import Qwen3ForCausalLM

from parley.engines import int8

NEW, PROMPT = 24, 512  # tokens


def smollm2_135m() -> PreTrainedModel:
    """The shape of HuggingFaceTB/SmolLM2-135M-Instruct."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152}
    return LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)
    )


def qwen3_600m() -> PreTrainedModel:
    """The shape of Qwen/Qwen3-0.6B."""
    sizes = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "vocab_size": 151936}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, tie_word_embeddings=True))


def bytes_of(model: PreTrainedModel) -> int:
    """Of its weights, each once."""
    return sum(t.nbytes for t in {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}.values())


def decode(model: PreTrainedModel) -> float:
    """Seconds for one token of plain `generate`, after a short prompt."""
    ids = torch.arange(16)[None]
    began = time.perf_counter()
    model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0)
    return (time.perf_counter() - began) / NEW


def prefill(model: PreTrainedModel) -> float:
    """Seconds for reading a prompt of 512 tokens."""
    began = time.perf_counter()
    model(torch.arange(PROMPT)[None], logits_to_keep=1)
    return time.perf_counter() - began


def main(rounds: int) -> None:
    """Prints the ratios: median and spread."""
    for shape in (smollm2_135m, qwen3_600m):
        torch.manual_seed(0)
        small = shape().to(torch.bfloat16).eval()
        floats = copy.deepcopy(small).float()
        int8.quantise(small)
        print(f"{shape.__name__}: memory {bytes_of(small) / bytes_of(floats):.2f} of that of 32-bit floats")
        measures: tuple[Callable[[PreTrainedModel], float], ...] = (decode, prefill)
        with torch.inference_mode():
            for measure in measures:
                ratios = [measure(floats) / measure(small) for _ in range(rounds + 1)][1:]  # the first warms up
                spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
                print(f"{shape.__name__}: {measure.__name__} {statistics.median(ratios):.2f} times as fast ({spread})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
