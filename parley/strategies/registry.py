"""The decoding strategies, one row each. The dropdown, the API, the help and the tables in the documents read them.

To add a strategy, add a row, and a decoder in `strategies/decoders` where no existing one fits. This module does not
import torch: a decoder is named as "module.function" and is imported when it runs.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parley.errors import BadSetting
from parley.strategies.requirements import REQUIREMENTS, ModelTraits

COMMON = ("repetition_penalty", "no_repeat_ngram_size", "max_new_tokens", "stop", "thinking_budget")
TRUNCATION = ("top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "top_h", "epsilon_cutoff", "eta_cutoff")
GUIDANCE = ("guidance_scale", "negative_prompt")  # for strategies that run one forward pass for each token
BEAMS = ("num_beams", "length_penalty")
DOCS = "https://huggingface.co/docs/transformers/generation_strategies"
LOCAL = ("openvino", "transformers")  # the engines that run decode loops in this process
# The number of draft tokens is that of the setting. By default transformers adapts it and stops at unlikely tokens.
CONSTANT_DRAFTS = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}

Values = Any  # an object with one attribute for each setting: `Settings`, which imports this module
Encode = Callable[[str], Sequence[int]]  # text to token ids, without special tokens


@dataclass(frozen=True)
class Strategy:
    """One way to choose the next token, with everything that the app knows about it."""

    name: str
    label: str
    summary: str  # one sentence: what it does
    when: str  # one sentence: when to use it
    source: str  # paper or page
    decoder: str  # "module.function" in `strategies.decoders`
    events: tuple[str, ...]  # the callbacks that the decoder takes, from `EVENTS`
    cost: Callable[[Values], float]  # estimated time for a token on a GPU, relative to greedy search
    settings: tuple[str, ...] = ()  # the settings that it uses in addition to `COMMON`
    engines: tuple[str, ...] = LOCAL  # the kinds of engine that can run it
    samples: bool = False  # whether it draws random numbers
    stock: bool = False  # whether plain `generate` of transformers gives the same text without the decoder
    needs_full_prefill: bool = False  # it reads hidden states of the whole prompt, which a KV cache does not hold
    requirements: tuple[str, ...] = ()  # the rows of `REQUIREMENTS` that a model has to meet
    config: Callable[[Values], Mapping[str, Any]] = lambda values: {}  # further fields of its `GenerationConfig`
    options: Callable[[Values, Encode], Mapping[str, Any]] = lambda values, encode: {}  # arguments of the decoder
    watermark: str = ""  # "module.class" in `strategies.processors`, for a watermark
    watermark_settings: tuple[str, ...] = ()  # the settings for the arguments of that class, in their order
    cross_tokenizer: bool = False  # whether draft tokens are converted through the text
    at_zero: str = ""  # the strategy that it becomes at temperature 0; empty: it needs a higher temperature

    def __post_init__(self) -> None:
        texts = (self.name, self.label, self.summary, self.when, self.source)
        if not all(texts) or not self.name.isidentifier():
            raise ValueError(f"The strategy {self.name!r} lacks its name, label, summary, use or source.")
        if self.decoder.count(".") != 1 or not self.events or not set(self.events) <= set(EVENTS):
            raise ValueError(f"The strategy {self.name!r} names no decoder, or no events of {', '.join(EVENTS)}.")
        if not set(self.requirements) <= set(REQUIREMENTS) or not self.engines:
            raise ValueError(f"The strategy {self.name!r} has unknown requirements, or no engine that runs it.")
        if bool(self.watermark) != bool(self.watermark_settings):
            raise ValueError(f"The strategy {self.name!r} has half a watermark.")

    @property
    def uses(self) -> tuple[str, ...]:
        """The names of all decoding settings that this strategy uses."""
        return (*self.settings, *COMMON, *(("seed",) if self.samples else ()))

    @property
    def drafts(self) -> bool:
        """Whether it needs a draft model."""
        return "draft" in self.requirements

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


# What a decoder reports while it runs: each new token; (drafted, accepted) after a draft; the hypotheses after a step.
EVENTS = ("on_token", "on_draft", "on_beams")


def _resolve(package: str, reference: str) -> Any:
    module, _, name = reference.partition(".")
    return getattr(importlib.import_module(f"parley.strategies.{package}.{module}"), name)


def _phrase_tokens(values: Values, encode: Encode) -> Mapping[str, Any]:
    # Each phrase is tokenised as within a sentence, after a space.
    return {"phrases": [tuple(encode(f" {word}")) for word in values.forced_words]}


def _draft_config(values: Values) -> dict[str, Any]:
    return {"num_assistant_tokens": values.draft_tokens} | CONSTANT_DRAFTS


STRATEGIES: dict[str, Strategy] = {
    row.name: row
    for row in (
        Strategy(
            name="greedy",
            label="Greedy",
            summary="Always takes the most likely next token.",
            when="For short, factual answers, and when the same question should give the same answer.",
            source=f"{DOCS}#greedy-search",
            settings=GUIDANCE,
            decoder="decode_loop.decode_loop",
            events=("on_token", "on_draft"),
            engines=(*LOCAL, "remote"),
            stock=True,
            cost=lambda s: 2.0 if s.guidance_scale > 1 else 1.0,
        ),
        Strategy(
            name="sampling",
            label="Sampling",
            summary="Draws the next token at random, weighted by the model's probabilities.",
            when="For conversation and stories, where varied text reads better.",
            source="https://arxiv.org/abs/1904.09751",
            settings=("temperature", *TRUNCATION, *GUIDANCE),
            at_zero="greedy",
            decoder="decode_loop.decode_loop",
            events=("on_token", "on_draft"),
            engines=(*LOCAL, "remote"),
            samples=True,
            stock=True,
            cost=lambda s: 2.0 if s.guidance_scale > 1 else 1.0,
        ),
        Strategy(
            name="beams",
            label="Beam search",
            summary="Keeps several candidate answers and returns the most likely one.",
            when="For translations and summaries, where the best sentence may begin with an unlikely word.",
            source=f"{DOCS}#beam-search",
            settings=BEAMS,
            decoder="observed_beam_search.observed_beam_search",
            events=("on_beams",),
            stock=True,
            cost=lambda s: 1.2 + 0.1 * s.num_beams,
        ),
        Strategy(
            name="beam_sampling",
            label="Beam-search sampling",
            summary="Keeps several candidate answers and draws their next tokens at random.",
            when="For answers that are likely as a whole, but differ from run to run.",
            source=f"{DOCS}#beam-search",
            settings=("temperature", *TRUNCATION, *BEAMS),
            at_zero="beams",
            decoder="observed_beam_search.observed_beam_search",
            events=("on_beams",),
            samples=True,
            stock=True,
            cost=lambda s: 1.2 + 0.1 * s.num_beams,
        ),
        Strategy(
            name="diverse_beams",
            label="Diverse beam search",
            summary="Runs several groups of beams and penalises tokens that another group has just chosen.",
            when="To see alternatives that differ in more than their last words.",
            source="https://arxiv.org/abs/1610.02424",
            settings=("beam_groups", "beams_per_group", "diversity_penalty", "length_penalty"),
            decoder="diverse_beams.diverse_beams",
            events=("on_beams",),
            cost=lambda s: 1.2 + 0.2 * s.beam_groups * s.beams_per_group,
            config=lambda s: {"num_beams": s.beam_groups * s.beams_per_group},
            options=lambda s, _: {"beam_groups": s.beam_groups, "diversity_penalty": s.diversity_penalty},
        ),
        Strategy(
            name="constrained_beams",
            label="Constrained beam search",
            summary="Searches for the most likely answer that contains certain words.",
            when="When a name or a term must occur in the answer.",
            source="https://arxiv.org/abs/1804.06609",
            settings=("force_words", *BEAMS),
            decoder="constrained_beams.constrained_beams",
            events=("on_beams",),
            cost=lambda s: 1.5 + 0.2 * s.num_beams,
            options=_phrase_tokens,
        ),
        Strategy(
            name="contrastive",
            label="Contrastive search",
            summary="Chooses, among the most likely tokens, one that does not repeat the text so far.",
            when="For long answers that should stay on the topic without repetition.",
            source="https://arxiv.org/abs/2202.06417",
            settings=("penalty_alpha", "candidates"),
            decoder="contrastive.contrastive",
            events=("on_token",),
            needs_full_prefill=True,
            requirements=("attention",),
            cost=lambda s: 1.5 + 0.1 * s.candidates,
            options=lambda s, _: {"penalty_alpha": s.penalty_alpha, "candidates": s.candidates},
        ),
        Strategy(
            name="dola",
            label="DoLa",
            summary="Prefers the token whose probability grows most between an early layer and the last layer.",
            when="For factual questions: the late layers add most of a model's knowledge.",
            source="https://arxiv.org/abs/2309.03883",
            settings=("dola_layers",),
            decoder="dola.dola",
            events=("on_token",),
            cost=lambda s: 1.5,
            options=lambda s, _: {"dola_layers": s.dola_layers},
        ),
        Strategy(
            name="assisted",
            label="Assisted decoding",
            summary="A small draft model proposes several tokens, and the model checks them in one pass.",
            when="For the text of greedy search in less time, with a small model that has the same tokenizer.",
            source="https://arxiv.org/abs/2211.17192",
            settings=("draft_tokens",),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            stock=True,
            requirements=("no state", "draft", "same tokenizer"),
            cost=lambda s: 1.5,
            config=_draft_config,
        ),
        Strategy(
            name="universal_assisted",
            label="Universal assisted decoding",
            summary="A draft model with another tokenizer proposes text, and the model checks its tokens in one pass.",
            when="For the text of greedy search in less time, when the small model has another tokenizer.",
            source="https://arxiv.org/abs/2502.05202",
            settings=("draft_tokens",),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            stock=True,
            cross_tokenizer=True,
            requirements=("no state", "draft"),
            cost=lambda s: 2.0,
            config=_draft_config,
        ),
        Strategy(
            name="prompt_lookup",
            label="Prompt lookup",
            summary="Proposes tokens by copying from the conversation, and checks them in one pass.",
            when="For the text of greedy search in less time, when the answer quotes the conversation.",
            source="https://huggingface.co/docs/transformers/assisted_decoding#prompt-lookup-decoding",
            settings=("draft_tokens", "matching_ngram"),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            stock=True,
            requirements=("no state",),
            cost=lambda s: 1.2,
            config=lambda s: {"prompt_lookup_num_tokens": s.draft_tokens, "max_matching_ngram_size": s.matching_ngram},
        ),
        Strategy(
            name="early_exit",
            label="Self-speculative early exit",
            summary="Proposes tokens with the first layers of the model, and checks them with all layers in one pass.",
            when="For the text of greedy search in less time, with models that were trained to exit early.",
            source="https://arxiv.org/abs/2404.16710",
            settings=("exit_layer", "draft_tokens"),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            stock=True,
            requirements=("attention", "layers"),
            cost=lambda s: 1.5,
            config=lambda s: {"assistant_early_exit": s.exit_layer} | _draft_config(s),
        ),
        Strategy(
            name="green_list",
            label="Watermark: green list",
            summary="Samples; the key and the last token select a part of the vocabulary that becomes likelier.",
            when="When the holder of the key should be able to detect later that a model wrote the text.",
            source="https://arxiv.org/abs/2301.10226",
            settings=("watermark_bias", "watermark_key", "temperature", *TRUNCATION),
            decoder="decode_loop.decode_loop",
            events=("on_token", "on_draft"),
            samples=True,
            stock=True,
            cost=lambda s: 1.5,
            watermark="watermarks.GreenList",
            watermark_settings=("watermark_key", "watermark_bias"),
        ),
        Strategy(
            name="synthid",
            label="Watermark: SynthID",
            summary="Samples through a tournament that depends on the key; on average over all keys, no token becomes "
            "more likely.",
            when="When the text should carry a watermark without loss of quality.",
            source="https://doi.org/10.1038/s41586-024-08025-4",
            settings=("watermark_key", "temperature", *TRUNCATION),
            decoder="decode_loop.decode_loop",
            events=("on_token", "on_draft"),
            samples=True,
            stock=True,
            cost=lambda s: 1.5,
            watermark="watermarks.SynthID",
            watermark_settings=("watermark_key",),
        ),
    )
}


def find(name: str) -> Strategy:
    """The strategy of that name. Raises `BadSetting` with the list of all names."""
    try:
        return STRATEGIES[name]
    except KeyError:
        raise BadSetting(
            f"There is no strategy called {name!r}. The strategies are: {', '.join(STRATEGIES)}."
        ) from None
