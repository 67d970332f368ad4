"""Tiny random decoders: saved as transformers saves them, and the graph that is written from their files, run."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from parley.engines.openvino import graph
from parley.engines.openvino.weights import Weights

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Large enough to show, under each of its names; a class ignores those that it does not define.
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "norm_eps", "norm_epsilon"), 0.03),
}
TOKENS = 140
ONE_BY_ONE = 120  # from this row on; those before it go in pieces
CUTS = [(0, 2), (2, 60), (60, ONE_BY_ONE), *((row, row + 1) for row in range(ONE_BY_ONE, TOKENS))]
BLOCK = 32  # tokens of a block of keys and values, on a CPU
EXACT = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
CORE = openvino.Core()


def config_of(model_type, **differs):
    return AutoConfig.for_model(model_type, **SIZES | differs)


def save(folder, model_type, **differs):
    """A model whose parameters are away from the neutral values they begin with, so that a forgotten one shows."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config_of(model_type, **differs), dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += torch.randn_like(parameter) * 0.2
        elif parameter.ndim == 1:
            parameter.data += torch.randn_like(parameter) * 0.1
        else:
            parameter.data *= 3
    model.save_pretrained(folder)
    return model


def change_config(folder, **changes):
    """Writes keys into a saved model's config.json."""
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def written(folder, precision="float32", **options):
    """The graph of a saved model."""
    return graph.write(AutoConfig.from_pretrained(folder), Weights(Path(folder)), precision, **options)


def tokens():
    return np.random.default_rng(1).integers(3, SIZES["vocab_size"], TOKENS)


def expected(model):
    """What transformers computes for `tokens()` in one pass: see `ModelOutput`."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens())[None], output_hidden_states=True)


@dataclass
class Ours:
    """What the graph computes for `tokens()`, put together from the pieces."""

    logits: np.ndarray  # (tokens, vocabulary)
    hidden: np.ndarray  # (tokens, width)
    early: list[np.ndarray]  # logits of the states before a layer, each (tokens, vocabulary)


def run(written_graph, early=0):
    """Runs a graph on the pieces of `CUTS`, one after the other; `early` is how many early states it has."""
    request = CORE.compile_model(written_graph, "CPU", EXACT).create_infer_request()
    for port in request.model_inputs:
        if "_cache." in port.any_name:
            shape = [-(-TOKENS // BLOCK), *(size.get_length() for size in list(port.partial_shape)[1:])]
            request.set_tensor(port.any_name, openvino.Tensor(port.element_type, openvino.Shape(shape)))
    ids, made = tokens(), []
    for begin, end in CUTS:
        rows, blocks = end - begin, -(-end // BLOCK)
        logits, hidden = request.infer(
            {
                "input_ids": ids[begin:end],
                "position_ids": np.arange(begin, end),
                "past_lens": np.array([begin], np.int32),
                "subsequence_begins": np.array([0, rows], np.int32),
                "block_indices": np.arange(blocks, dtype=np.int32),
                "block_indices_begins": np.array([0, blocks], np.int32),
                "max_context_len": np.array(end, np.int32),
                "logit_rows": np.arange((early + 1) * rows),
            }
        ).values()
        made.append((*np.split(logits.copy(), early + 1), hidden.copy()))
    logits, *between, hidden = (np.concatenate(parts) for parts in zip(*made, strict=True))
    return Ours(logits, hidden, between)


def distance(ours, theirs):
    """The relative distance of ours from what transformers computes."""
    theirs = theirs.detach().reshape(ours.shape).numpy()
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
