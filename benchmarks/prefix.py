"""What the prefix cache saves: `python -m benchmarks.prefix` times the first token after a long history, both ways.

A random model of the shape of SmolLM2-135M reads a conversation of so many tokens and a short new question, in turn
with the history in the session's cache and without. What is timed is the whole road from the messages to the first
token: chat template, tokens, prefill. The ratio is taken within each round, so that a busy machine slows both.
"""

import argparse
import dataclasses
import statistics
import threading
import time
from collections.abc import Sequence

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from parley import catalog
from parley.engines.loading import load
from parley.engines.local import LocalEngine
from parley.engines.prompt import fit
from parley.messages import Message
from parley.settings import Settings

HISTORIES = (256, 1024, 4096)  # tokens
SETTINGS = Settings.check({"strategy": "greedy", "max_new_tokens": 1})


def engine() -> LocalEngine:
    """The shape of SmolLM2-135M with Budgie's tokenizer, which knows the first of its 49,152 tokens."""
    budgie = load(catalog.find("budgie"), report=lambda _: None, cancel=threading.Event())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    return LocalEngine(dataclasses.replace(budgie, model=model, context=8192, layers=30))


def history(engine: LocalEngine, tokens: int) -> list[Message]:
    """A conversation of about so many tokens, in turns of about fifty."""
    turns, text = [], "Tell me of the owl, the river and the lamp in the window. "
    while fit(engine.loaded, [*turns, Message("user", text)], SETTINGS).length < tokens:
        turns += [Message("user", text), Message("assistant", f"{len(turns)}: {text}")]
    return turns


def seconds(engine: LocalEngine, messages: Sequence[Message], session: str) -> tuple[float, int]:
    """From the messages to the first token, and how many tokens of the prompt were cached."""
    began = time.perf_counter()
    *_, last = engine.stream(messages, SETTINGS, threading.Event(), session=session)
    return time.perf_counter() - began, last.usage.cached_tokens


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    model = engine()
    for tokens in HISTORIES:
        talk = history(model, tokens)
        seconds(model, [*talk, Message("user", "Hello?")], "visitor")
        pairs, ratios = [], []
        for number in range(rounds):
            messages = [*talk, Message("user", f"{number} more owls came by, and one of them spoke. What did it say?")]
            plain, _ = seconds(model, messages, "")
            cached, found = seconds(model, messages, "visitor")
            pairs.append((plain, cached))
            ratios.append(plain / cached)
        length = fit(model.loaded, messages, SETTINGS).length
        plain, cached = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(
            f"history {tokens:>5,}: {found:,} of {length:,} tokens cached, first token "
            f"{plain:.2f} s → {cached:.2f} s, "
            f"{statistics.median(ratios):.1f} times ({min(ratios):.1f} to {max(ratios):.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
