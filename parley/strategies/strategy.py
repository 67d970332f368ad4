"""What the app knows about a decoding strategy. This module does not import torch."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parley.strategies.requirements import REQUIREMENTS, ModelTraits

LOCAL = ("openvino", "transformers")  # the engines that run decode loops in this process
COMMON = (
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "logit_bias",
    "bad_words",
    "answer_form",
    "answer_pattern",
    "max_new_tokens",
    "min_new_tokens",
    "stop",
    "thinking_budget",
)
# The groups of the list on the page, in its order.
EVERYDAY, SEARCH, FACTS = "Everyday", "Search", "Against repetition and for facts"
SOONER, WATERMARKS = "The same result sooner", "Watermarks"
GROUPS = (EVERYDAY, SEARCH, FACTS, SOONER, WATERMARKS)
MAX_HINT_CHARACTERS = 40
# What a decoder reports while it runs: each new token; (drafted, accepted) after a draft; the hypotheses after a step.
EVENTS = ("on_token", "on_draft", "on_beams")
# What a decoder tells of each step to who asks how it came to its answer: the hypotheses; the tokens that were tried,
# with both terms; the draft tokens of a pass, and how many were accepted.
RECORDS = ("on_beams", "on_candidates", "on_pass")

Values = Any  # an object with one attribute for each setting: `Settings`, which imports this module
Encode = Callable[[str], Sequence[int]]  # text to token ids, without special tokens


@dataclass(frozen=True)
class Strategy:
    """One way to choose the next token, with everything that the app knows about it."""

    name: str
    label: str
    group: str  # one of `GROUPS`
    hint: str  # half a line for the list
    summary: str  # one sentence: what it does
    when: str  # one sentence that begins with "For": when to use it
    source: str  # paper or page
    decoder: str  # "module.function" in `strategies.decoders`, or "any.module:function" of your own
    events: tuple[str, ...]  # the callbacks that the decoder takes, from `EVENTS`
    cost: Callable[[Values], float]  # estimated time for a token on a GPU, relative to greedy search
    settings: tuple[str, ...] = ()  # the settings that it uses in addition to `COMMON`
    engines: tuple[str, ...] = LOCAL  # the kinds of engine that can run it
    record: str = ""  # the callback of its decoder, from `RECORDS`, where its tokens alone do not show its choices
    samples: bool = False  # whether it draws random numbers
    stock: bool = False  # whether plain `generate` of transformers gives the same text without the decoder
    needs_full_prefill: bool = False  # it reads hidden states of the whole prompt, which a KV cache does not hold
    requirements: tuple[str, ...] = ()  # the rows of `REQUIREMENTS` that a model has to meet
    config: Callable[[Values], Mapping[str, Any]] = lambda values: {}  # further fields of its `GenerationConfig`
    options: Callable[[Values, Encode], Mapping[str, Any]] = lambda values, encode: {}  # arguments of the decoder
    watermark: str = ""  # "module.class" in `strategies.processors`, for a watermark
    watermark_settings: tuple[str, ...] = ()  # the settings for the arguments of that class, in their order
    mark_tokens: int = 0  # after so many tokens of a real model 19 of 20 of its watermarks are found
    cross_tokenizer: bool = False  # whether draft tokens are converted through the text
    at_zero: str = ""  # the strategy that it becomes at temperature 0; empty: it needs a higher temperature

    def __post_init__(self) -> None:
        texts = (self.name, self.label, self.hint, self.summary, self.when, self.source)
        if self.group not in GROUPS or len(self.hint) > MAX_HINT_CHARACTERS or not self.when.startswith("For "):
            raise ValueError(f"The strategy {self.name!r} has no group, too long a hint, or a use without 'For'.")
        if not all(texts) or not self.name.isidentifier():
            raise ValueError(f"The strategy {self.name!r} lacks its name, label, hint, summary, use or source.")
        known = self.decoder.count(".") == 1 or ":" in self.decoder
        if not known or not self.events or not set(self.events) <= set(EVENTS):
            raise ValueError(f"The strategy {self.name!r} names no decoder, or no events of {', '.join(EVENTS)}.")
        if self.record not in ("", *RECORDS):
            raise ValueError(f"The strategy {self.name!r} records none of {', '.join(RECORDS)}.")
        if not set(self.requirements) <= set(REQUIREMENTS) or not self.engines:
            raise ValueError(f"The strategy {self.name!r} has unknown requirements, or no engine that runs it.")
        if not bool(self.watermark) == bool(self.watermark_settings) == bool(self.mark_tokens):
            raise ValueError(f"The strategy {self.name!r} has half a watermark.")

    @property
    def uses(self) -> tuple[str, ...]:
        """The names of all decoding settings that this strategy uses."""
        return (*self.settings, *COMMON, *(("seed",) if self.samples else ()))

    @property
    def drafts(self) -> bool:
        """Whether it needs a draft model."""
        return "draft" in self.requirements

    @property
    def searches(self) -> bool:
        """Whether it keeps several hypotheses, whose text changes while it runs."""
        return "on_beams" in self.events

    def num_beams(self, values: Values) -> int:
        """How many hypotheses it keeps with these settings."""
        return int(self.config(values).get("num_beams", values.num_beams)) if self.searches else 1

    def decode(self) -> Callable[..., Any]:
        """The decoder, for `generate(custom_generate=…)`. Imports torch."""
        return _resolve("decoders", self.decoder)

    def mark(self, values: Values) -> Any:
        """The watermark with these settings, for `GenerationConfig`; None for a strategy without one."""
        if not self.watermark:
            return None
        return _resolve("processors", self.watermark)(*(getattr(values, name) for name in self.watermark_settings))

    def refusal(self, model: ModelTraits) -> str:
        """Why this model cannot use it, as a sentence that says what to do; empty where it can."""
        reasons = [REQUIREMENTS[name].lacks(model) for name in self.requirements]
        if model.strategies is not None and self.name not in model.strategies:
            reasons = [f"{model.label} answers from a server that only does {' and '.join(sorted(model.strategies))}"]
        if model.engine and model.engine not in self.engines:
            reasons.append(f"{model.label} runs on the engine {model.engine}")
        reason = next(filter(None, reasons), "")
        return reason and f"{reason}, so {self.label} does not work with it. Choose another strategy."


def _resolve(package: str, reference: str) -> Any:
    module, own, name = reference.partition(":")
    if not own:
        module, _, name = reference.partition(".")
        module = f"parley.strategies.{package}.{module}"
    return getattr(importlib.import_module(module), name)
