"""The decoding strategies, one row each. The dropdown, the API, the help and the tables in the documents read them.

To add a strategy, add a row, and a decoder in `strategies/decoders` where no existing one fits. This module does not
import torch: a decoder is named as "module.function" and is imported when it runs.
"""

from collections.abc import Mapping
from typing import Any

from parley.errors import BadSetting, instead_of
from parley.strategies.strategy import EVERYDAY, FACTS, LOCAL, SEARCH, SOONER, WATERMARKS, Encode, Strategy, Values

TRUNCATION = ("top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "top_h", "epsilon_cutoff", "eta_cutoff")
# What stands behind the temperature, for one text that is drawn token by token.
LATE = ("dynatemp_range", "dynatemp_exponent", "xtc_probability", "xtc_threshold", "mirostat_tau", "mirostat_eta")
GUIDANCE = ("guidance_scale", "negative_prompt")  # for strategies that run one forward pass for each token
BEAMS = ("num_beams", "length_penalty")
DOCS = "https://huggingface.co/docs/transformers/generation_strategies"
# The number of draft tokens is that of the setting. By default transformers adapts it and stops at unlikely tokens.
CONSTANT_DRAFTS = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}


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
            group=EVERYDAY,
            hint="the same answer every time",
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
            group=EVERYDAY,
            hint="varied, for conversation",
            summary="Draws the next token at random, weighted by the model's probabilities.",
            when="For conversation and stories, where varied text reads better.",
            source="https://arxiv.org/abs/1904.09751",
            settings=("temperature", *TRUNCATION, *LATE, *GUIDANCE),
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
            group=SEARCH,
            hint="the likeliest answer as a whole",
            summary="Keeps several candidate answers and returns the most likely one.",
            when="For translations and summaries, where the best sentence may begin with an unlikely word.",
            source=f"{DOCS}#beam-search",
            settings=BEAMS,
            decoder="observed_beam_search.observed_beam_search",
            events=("on_beams",),
            record="on_beams",
            stock=True,
            cost=lambda s: 1.2 + 0.1 * s.num_beams,
        ),
        Strategy(
            name="beam_sampling",
            label="Beam-search sampling",
            group=SEARCH,
            hint="likely, and different each time",
            summary="Keeps several candidate answers and draws their next tokens at random.",
            when="For answers that are likely as a whole, but differ from run to run.",
            source=f"{DOCS}#beam-search",
            settings=("temperature", *TRUNCATION, *BEAMS),
            at_zero="beams",
            decoder="observed_beam_search.observed_beam_search",
            events=("on_beams",),
            record="on_beams",
            samples=True,
            stock=True,
            cost=lambda s: 1.2 + 0.1 * s.num_beams,
        ),
        Strategy(
            name="diverse_beams",
            label="Diverse beam search",
            group=SEARCH,
            hint="alternatives that differ",
            summary="Runs several groups of beams and penalises tokens that another group has just chosen.",
            when="For alternatives that differ in more than their last words.",
            source="https://arxiv.org/abs/1610.02424",
            settings=("beam_groups", "beams_per_group", "diversity_penalty", "length_penalty"),
            decoder="diverse_beams.diverse_beams",
            events=("on_beams",),
            record="on_beams",
            cost=lambda s: 1.2 + 0.2 * s.beam_groups * s.beams_per_group,
            config=lambda s: {"num_beams": s.beam_groups * s.beams_per_group},
            options=lambda s, _: {"beam_groups": s.beam_groups, "diversity_penalty": s.diversity_penalty},
        ),
        Strategy(
            name="constrained_beams",
            label="Constrained beam search",
            group=SEARCH,
            hint="with words that must occur",
            summary="Searches for the most likely answer that contains certain words.",
            when="For answers in which a name or a term must occur.",
            source="https://arxiv.org/abs/1804.06609",
            settings=("force_words", *BEAMS),
            decoder="constrained_beams.constrained_beams",
            events=("on_beams",),
            record="on_beams",
            cost=lambda s: 1.5 + 0.2 * s.num_beams,
            options=_phrase_tokens,
        ),
        Strategy(
            name="contrastive",
            label="Contrastive search",
            group=FACTS,
            hint="long answers without repetition",
            summary="Chooses, among the most likely tokens, one that does not repeat the text so far.",
            when="For long answers that should stay on the topic without repetition.",
            source="https://arxiv.org/abs/2202.06417",
            settings=("penalty_alpha", "candidates"),
            decoder="contrastive.contrastive",
            events=("on_token",),
            record="on_candidates",
            needs_full_prefill=True,
            requirements=("attention",),
            cost=lambda s: 1.5 + 0.1 * s.candidates,
            options=lambda s, _: {"penalty_alpha": s.penalty_alpha, "candidates": s.candidates},
        ),
        Strategy(
            name="dola",
            label="DoLa",
            group=FACTS,
            hint="facts from the late layers",
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
            group=SOONER,
            hint="a small model proposes",
            summary="A small draft model proposes several tokens, and the model checks them in one pass.",
            when="For the text of greedy search in less time, with a small model that has the same tokenizer.",
            source="https://arxiv.org/abs/2211.17192",
            settings=("draft_tokens",),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            record="on_pass",
            stock=True,
            requirements=("no state", "draft", "same tokenizer"),
            cost=lambda s: 1.5,
            config=_draft_config,
        ),
        Strategy(
            name="speculative_sampling",
            label="Speculative sampling",
            group=SOONER,
            hint="draws, a small model proposes",
            summary="A small draft model draws several tokens, and the model accepts each of them as often as its own "
            "distribution needs.",
            when="For the distribution of sampling in less time, with a small model that has the same tokenizer.",
            source="https://arxiv.org/abs/2211.17192",
            settings=("temperature", *TRUNCATION, "draft_tokens"),
            at_zero="assisted",
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            record="on_pass",
            samples=True,
            stock=True,
            requirements=("no state", "draft", "same tokenizer"),
            cost=lambda s: 1.5,
            config=_draft_config,
        ),
        Strategy(
            name="universal_assisted",
            label="Universal assisted decoding",
            group=SOONER,
            hint="drafts of another tokenizer",
            summary="A draft model with another tokenizer proposes text, and the model checks its tokens in one pass.",
            when="For the text of greedy search in less time, when the small model has another tokenizer.",
            source="https://arxiv.org/abs/2502.05202",
            settings=("draft_tokens",),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            record="on_pass",
            stock=True,
            cross_tokenizer=True,
            requirements=("no state", "draft"),
            cost=lambda s: 2.0,
            config=_draft_config,
        ),
        Strategy(
            name="prompt_lookup",
            label="Prompt lookup",
            group=SOONER,
            hint="copies from the conversation",
            summary="Proposes tokens by copying from the conversation, and checks them in one pass.",
            when="For the text of greedy search in less time, when the answer quotes the conversation.",
            source="https://huggingface.co/docs/transformers/assisted_decoding#prompt-lookup-decoding",
            settings=("draft_tokens", "matching_ngram"),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            record="on_pass",
            stock=True,
            requirements=("no state",),
            cost=lambda s: 1.2,
            config=lambda s: {"prompt_lookup_num_tokens": s.draft_tokens, "max_matching_ngram_size": s.matching_ngram},
        ),
        Strategy(
            name="early_exit",
            label="Self-speculative early exit",
            group=SOONER,
            hint="its first layers propose",
            summary="Proposes tokens with the first layers of the model, and checks them with all layers in one pass.",
            when="For the text of greedy search in less time, with models that were trained to exit early.",
            source="https://arxiv.org/abs/2404.16710",
            settings=("exit_layer", "draft_tokens"),
            decoder="speculative.speculative",
            events=("on_token", "on_draft"),
            record="on_pass",
            stock=True,
            requirements=("attention", "layers"),
            cost=lambda s: 1.5,
            config=lambda s: {"assistant_early_exit": s.exit_layer} | _draft_config(s),
        ),
        Strategy(
            name="green_list",
            label="Watermark: green list",
            group=WATERMARKS,
            hint="easy to find later",
            summary="Samples; the key and the last token select a part of the vocabulary that becomes likelier.",
            when="For text of which the holder of the key should be able to tell later that a model wrote it.",
            source="https://arxiv.org/abs/2301.10226",
            settings=("watermark_bias", "watermark_key", "temperature", *TRUNCATION),
            decoder="decode_loop.decode_loop",
            events=("on_token", "on_draft"),
            samples=True,
            stock=True,
            cost=lambda s: 1.5,
            watermark="watermarks.GreenList",
            watermark_settings=("watermark_key", "watermark_bias"),
            mark_tokens=120,
        ),
        Strategy(
            name="synthid",
            label="Watermark: SynthID",
            group=WATERMARKS,
            hint="no loss of quality on average",
            summary="Samples through a tournament that depends on the key; on average over all keys, no token becomes "
            "more likely.",
            when="For text that should carry a watermark without loss of quality.",
            source="https://doi.org/10.1038/s41586-024-08025-4",
            settings=("watermark_key", "temperature", *TRUNCATION),
            decoder="decode_loop.decode_loop",
            events=("on_token", "on_draft"),
            samples=True,
            stock=True,
            cost=lambda s: 1.5,
            watermark="watermarks.SynthID",
            watermark_settings=("watermark_key",),
            mark_tokens=120,
        ),
    )
}


def find(name: str) -> Strategy:
    """The strategy of that name. Raises `BadSetting` with the list of all names."""
    try:
        return STRATEGIES[name]
    except KeyError:
        known = f"{instead_of(name, STRATEGIES)} The strategies are: {', '.join(STRATEGIES)}."
        sentence = f"There is no strategy called {name!r}.{known}"
        raise BadSetting(sentence, name="strategy", valid=list(STRATEGIES)) from None


def searched(strategy: Strategy) -> Strategy:
    """The strategy whose tokens, or whose distribution, this one finds sooner; for most, itself."""
    sooner = STRATEGIES["sampling" if strategy.samples else "greedy"]
    return sooner if strategy.group == SOONER else strategy
