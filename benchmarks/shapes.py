"""Models in the shapes of real ones, whose random weights are mended in one place so that they talk: see `teach`."""

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config
from transformers.models.llama import LlamaForCausalLM
from transformers.models.qwen3 import Qwen3ForCausalLM

from parley import catalog
from parley.engines import paired
from parley.engines.hub import ModelRow
from parley.engines.loading import Loaded, load
from parley.engines.local import LocalEngine
from parley.engines.paired import PairedEngine
from parley.engines.prompt import fit
from parley.messages import Message
from parley.settings import Settings

GREEDY = Settings.check({"strategy": "greedy", "max_new_tokens": 1})
WORDS = 120  # in the round that the models talk in


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


SHAPES: dict[str, Callable[[], PreTrainedModel]] = {"SmolLM2-135M shape": smollm2_135m, "Qwen3-0.6B shape": qwen3_600m}


def bytes_of(model: PreTrainedModel) -> int:
    """Of its weights, each once."""
    return sum(t.nbytes for t in {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}.values())


def budgie() -> Loaded:
    """The bundled model, for its tokenizer and template."""
    row = next(row for row in catalog.CATALOGUE if row.name == "budgie")
    return load(row, report=lambda _: None, cancel=threading.Event())


def words(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that are whole words after a space, whatever stands beside them."""

    def whole(id: int) -> bool:
        text = tokenizer.decode([id])
        return bool(re.fullmatch(" [a-z]{3,}", text)) and tokenizer.encode(text, add_special_tokens=False) == [id]

    return [id for id in range(len(tokenizer)) if whole(id)][:WORDS]


def teach(model: PreTrainedModel, known: Loaded) -> str:
    """Makes it say the same words round and round, whatever it reads; returns them.

    So its answers are text, never end, and can be copied. What the layers add to a token's embedding is made small,
    and the head gives to each word's embedding the word that follows: every product is computed as before.
    """
    ids = words(known.tokenizer)
    opening = fit(known, [Message("user", "Hello")], GREEDY).ids[0, -1]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(1e-3)
        embedding = model.get_input_embeddings().weight
        head = 1e-4 * torch.randn_like(embedding)
        head[ids] = embedding[[ids[-1], *ids[:-1]]]
        head[ids[0]] += embedding[opening]
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(head)
    model.generation_config = GenerationConfig(pad_token_id=0)
    return known.tokenizer.decode(ids)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One such model, in all the ways in which it is measured."""

    name: str
    folder: Path  # as the app would be given it
    engine: LocalEngine | PairedEngine  # what a visitor gets
    torch: LocalEngine  # as the plan would have it here
    floats: LocalEngine  # in 32-bit floats
    text: str  # the words that it says


def made(name: str, folder: Path, export: bool) -> Shape:
    """Such a model, saved in `folder` and loaded from there as the app loads one, and once more in floats.

    With `export` waits until OpenVINO has its own form of it, which the first time takes minutes.
    """
    text = save(name, folder)
    row = ModelRow(name, str(folder), name)
    loaded = load(row, lambda _: None, threading.Event())
    loaded.context = 8192  # some of the talks are longer than the shape's own
    wide = LlamaForCausalLM if loaded.model.config.model_type == "llama" else Qwen3ForCausalLM
    floats = wide.from_pretrained(folder, dtype=torch.float32).eval()
    floats.generation_config = loaded.model.generation_config
    fit = dataclasses.replace(loaded.fit, dtype="float32", quantization="none", by="")
    ours, plain = LocalEngine(loaded), LocalEngine(dataclasses.replace(loaded, model=floats, fit=fit))
    fast = PairedEngine(ours) if export and paired.pays(loaded) else ours
    while fast is not ours and fast.preparing:
        time.sleep(1)
    return Shape(name, folder, fast, ours, plain, text)


def save(shape: str, folder: Path) -> str:
    """Such a model as a folder that the app can be given in `MODEL_IDS`; returns the words that it says."""
    torch.manual_seed(0)
    model = SHAPES[shape]().to(torch.bfloat16).eval()
    known = budgie()
    text = teach(model, known)
    model.save_pretrained(folder)
    known.tokenizer.save_pretrained(folder)
    return text


def apart(work: Callable[..., Any], *given: object) -> Any:
    """`work(*given)` in a thread that ends, and its team of OpenMP threads with it: where two threads have one,
    they wait for each other's cores, and all that is measured afterwards runs at half its speed.
    """
    with ThreadPoolExecutor(1) as worker:
        return worker.submit(work, *given).result()
