"""How many people a fleet serves, from a model's config.json and a card's data sheet, with the arithmetic shown.

python examples/fleet/sizing.py config.json --memory 80 --bandwidth 3350 --tflops 989 --copies 2

For dense models: every token reads every weight. The speeds are bounds that the hardware sets; no engine reaches them
wholly, so measure before you buy.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GB = 1e9
USED = 0.9  # of a card's memory: what vLLM takes unless --gpu-memory-utilization says otherwise
WORKING = 2 * GB  # a card: activations, CUDA graphs, buffers to talk to the others


@dataclass(frozen=True)
class Model:
    """What of a model decides."""

    parameters: int
    kv_bytes: int  # keys and values of one token
    bytes: int  # of the weights


@dataclass(frozen=True)
class Card:
    """What of a card decides: bytes, bytes a second, operations a second."""

    memory: float
    bandwidth: float
    operations: float


@dataclass(frozen=True)
class Load:
    """What people want: tokens of each conversation, tokens a second for each, and the share of time they wait."""

    context: int
    speed: float
    busy: float


def read_model(config: Mapping[str, Any], width: int = 2) -> Model:
    """The figures of a dense decoder with a gated MLP (Llama, Qwen, Granite, OLMo, SmolLM …), `width` bytes a number.

    Norms are left out: they are less than a thousandth. Raises `ValueError` for other models.
    """
    if any("expert" in name for name in config):
        raise ValueError("This is a mixture of experts, for which the arithmetic is another one.")
    try:
        hidden, layers, vocabulary = (config[n] for n in ("hidden_size", "num_hidden_layers", "vocab_size"))
        heads, wide = config["num_attention_heads"], config["intermediate_size"]
    except KeyError as missing:
        raise ValueError(f"This config.json has no {missing}. Take that of the language model.") from None
    grouped = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * size * (heads + grouped)  # query and output; keys and values
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
    parameters = embeddings + layers * (attention + 3 * hidden * wide)
    return Model(parameters, 2 * layers * grouped * size * width, parameters * width)


def report(model: Model, card: Card, load: Load, tensor: int = 1, copies: int = 1) -> str:
    """The arithmetic, line by line. `tensor` cards share one copy of the model (tensor parallel), and there are so
    many copies (data parallel). Raises `ValueError` where a copy does not fit.
    """
    share = model.bytes / tensor
    room = USED * card.memory - share - WORKING
    if room <= 0:
        raise ValueError(
            f"A card of {card.memory / GB:.0f} GB cannot hold its {share / GB:.1f} GB of the weights. Raise --tensor."
        )
    held = int(room * tensor / model.kv_bytes)
    talk = load.context * model.kv_bytes
    per_token = 2 * model.parameters / (card.operations * tensor)  # seconds of arithmetic
    by_bandwidth = int((card.bandwidth / load.speed - share) * tensor / talk)
    by_arithmetic = int(1 / (load.speed * per_token))
    at_once = max(0, min(held // load.context, by_bandwidth, by_arithmetic))
    step = max((share + at_once * talk / tensor) / card.bandwidth, at_once * per_token)
    people = int(at_once * copies / load.busy)
    lines = {
        "weights": f"{model.parameters / 1e9:.2f} billion numbers, {model.bytes / GB:.1f} GB / {tensor} = "
        f"{share / GB:.1f} GB a card",
        "cache": f"{model.kv_bytes / 1e3:.0f} kB a token x {load.context:,} = {talk / GB:.2f} GB a conversation",
        "room": f"{USED} x {card.memory / GB:.0f} - {share / GB:.1f} - {WORKING / GB:.0f} = {room / GB:.1f} GB a "
        f"card, {held:,} tokens, {held // load.context:,} conversations",
        "one alone": f"{card.bandwidth / GB:,.0f} GB/s / {(share + talk / tensor) / GB:.1f} GB = "
        f"{card.bandwidth / (share + talk / tensor):,.0f} tokens/s at most",
        "not slower": f"than {load.speed:g} tokens/s each: bandwidth allows {by_bandwidth:,} at once, "
        f"arithmetic {by_arithmetic:,}",
        "at once": f"{at_once:,} a copy, each {1 / step:,.0f} tokens/s, together {at_once / step:,.0f} at most",
        "people": f"{at_once:,} x {copies} / {load.busy:g} = {people:,}, of whom {load.busy:.0%} wait for an answer",
        "cards": f"{tensor} x {copies} = {tensor * copies}, {people // (tensor * copies):,} people a card",
    }
    return "\n".join(f"{name:<11} {line}" for name, line in lines.items())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a model's config.json")
    parser.add_argument("--memory", type=float, default=80, help="of a card, in GB")
    parser.add_argument("--bandwidth", type=float, default=3350, help="of its memory, in GB/s")
    parser.add_argument("--tflops", type=float, default=989, help="dense, in 16-bit floats")
    parser.add_argument("--tensor", type=int, default=1, help="cards that share one copy of the model")
    parser.add_argument("--copies", type=int, default=1, help="of the model, each with its own users")
    parser.add_argument("--context", type=int, default=4000, help="tokens of a conversation")
    parser.add_argument("--speed", type=float, default=20, help="tokens a second that each must get")
    parser.add_argument("--busy", type=float, default=0.1, help="share of the time that a person waits for an answer")
    given = parser.parse_args()
    card = Card(given.memory * GB, given.bandwidth * GB, given.tflops * 1e12)
    load = Load(given.context, given.speed, given.busy)
    try:
        print(report(read_model(json.loads(given.config.read_text())), card, load, given.tensor, given.copies))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
