"""How each strategy is run: from checked settings to the arguments of `generate`, with nothing left to a default."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from parley import strategies
from parley.engines.loader import Loaded
from parley.errors import BadSetting
from parley.generation.prefix_cache import croppable, new_cache
from parley.generation.prompt import Prompt
from parley.generation.reasoning_parser import CLOSE, OPEN
from parley.generation.streaming import AnswerStreamer
from parley.models.precision import OPENVINO
from parley.settings import Settings
from parley.strategies.decoders.constrained_beams import constrained_beams
from parley.strategies.decoders.contrastive import contrastive
from parley.strategies.decoders.decode_loop import tokens
from parley.strategies.decoders.diverse_beams import diverse_beams
from parley.strategies.decoders.dola import dola
from parley.strategies.decoders.live_beams import live_beams
from parley.strategies.decoders.speculative import speculative
from parley.strategies.processors.thinking_budget import ThinkingBudget
from parley.strategies.processors.top_n_sigma import TopNSigma
from parley.strategies.processors.watermarks import GreenList, Mark, SynthID
from parley.strategies.requirements import RECURRENT, Abilities

# What `generate` would take from the model, or from itself, where it is left out.
NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "temperature": None,
    "top_k": None,
    "top_p": None,
    "min_p": None,
    "typical_p": None,
    "top_h": None,
    "epsilon_cutoff": None,
    "eta_cutoff": None,
    "num_beams": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "no_repeat_ngram_size": None,
    "guidance_scale": None,
}
OFF = {
    "min_p": 0.0,
    "top_h": 0.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
}
EXACT = ("float32", "int8")  # numbers in which several tokens at once round, on a CPU, as one after the other
COPIED = {*NEUTRAL, "repetition_penalty"}
GUESSING = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}  # as many as was set


@dataclass(frozen=True)
class Plan:
    """What `generate` is called with, but for the prompt, the seed and what only watches."""

    config: dict[str, Any]  # fields of a GenerationConfig, all plain data
    longest: int  # tokens of the prompt and the answer together, at most
    loop: Callable[..., torch.Tensor] | None = None  # one of ours, for `custom_generate`
    options: dict[str, Any] = field(default_factory=dict)  # its own arguments, plain data
    processors: tuple[LogitsProcessor, ...] = ()
    draft: Loaded | None = None  # the model that guesses ahead
    through_text: bool = False  # its guesses are tokenised anew

    def arguments(self, streamer: AnswerStreamer) -> dict[str, Any]:
        """The keyword arguments for `generate`; what it makes goes to `streamer`."""
        listeners = {"on_token": streamer.take, "on_beams": streamer.show, "on_guess": streamer.count_guess}
        heard = {name: listeners[name] for name in LISTENERS.get(self.loop, ())}
        return {
            "generation_config": GenerationConfig(**self.config),
            "logits_processor": LogitsProcessorList(self.processors),
            **({"custom_generate": self.loop, **heard} if self.loop else {"streamer": streamer}),
            **self.options,
            **({"draft": self.draft.model} if self.draft else {}),
            **({"tokenizers": (streamer.tokenizer, self.draft.tokenizer)} if self.draft and self.through_text else {}),
        }


def plan(loaded: Loaded, settings: Settings, prompt: Prompt, draft: Loaded | None = None) -> Plan:
    """How this model answers the prompt by the strategy of these settings, as far as the context window reaches.

    `draft` is the model that guesses ahead, where the strategy wants one. Raises `BadSetting` for what it cannot do.
    """
    row = strategies.find(settings.strategy)
    if refusal := row.refusal(_abilities(loaded, draft)):
        raise BadSetting(refusal)
    own = loaded.model.generation_config
    config = NEUTRAL | {
        "do_sample": row.samples,
        "max_new_tokens": min(settings.max_new_tokens, loaded.context - prompt.length),
    }
    config |= {"eos_token_id": own.eos_token_id, "pad_token_id": own.pad_token_id, "bos_token_id": own.bos_token_id}
    for name in row.uses:
        value = getattr(settings, name)
        if name in COPIED and OFF.get(name) != value:
            config[name] = value
    plain = Plan(
        config,
        prompt.length + config["max_new_tokens"],
        processors=tuple(_processors(loaded, settings, prompt)),
        draft=draft if row.drafts else None,
    )
    return RUNS[row.runs](loaded, settings, plain)


def _processors(loaded: Loaded, settings: Settings, prompt: Prompt) -> Iterator[LogitsProcessor]:
    """What transformers does not have, in its place before temperature and truncation."""
    if settings.thinking and settings.thinking_budget:
        marks = [loaded.tokenizer.encode(mark, add_special_tokens=False) for mark in (OPEN, CLOSE)]
        opening = [] if prompt.pre_opened else marks[0]
        yield ThinkingBudget(settings.thinking_budget, prompt.length, opening, marks[1])
    if "top_n_sigma" in strategies.find(settings.strategy).uses and settings.top_n_sigma:
        yield TopNSigma(settings.top_n_sigma)


def _abilities(loaded: Loaded, draft: Loaded | None) -> Abilities:
    recurrent = not RECURRENT.isdisjoint(getattr(loaded.model.config.get_text_config(), "layer_types", None) or ())
    stateful = bool(getattr(loaded.model, "_is_stateful", False))
    known = Abilities(loaded.row.label, loaded.layers, stateful, recurrent)
    if draft is None:
        return known
    same = draft.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    return replace(known, draft=draft.row.label, same_tokenizer=same)


Run = Callable[[Loaded, Settings, Plan], Plan]


def _tokens(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    """By our loop where its guesses change nothing."""
    model = loaded.model
    fit = loaded.fit
    if fit.engine == OPENVINO:
        return replace(plain, loop=tokens, options={"lookup": plain.config["guidance_scale"] is None})
    if fit.device != "cpu" or fit.numbers not in EXACT or not model._supports_default_dynamic_cache():
        return plain
    cache = new_cache(model)
    if not croppable(cache, 0):  # some layers have a state, which needs all that `generate` hands on
        return plain
    lookup = croppable(cache, plain.longest) and plain.config["guidance_scale"] is None
    return replace(plain, loop=tokens, options={"lookup": lookup})


def _watermark(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    marked = replace(plain, config=plain.config | {"watermarking_config": mark(settings)})
    # Some marks remember what they were asked, so nothing is guessed.
    return replace(marked, loop=tokens, options={"lookup": False}) if loaded.fit.engine == OPENVINO else marked


def mark(settings: Settings) -> Mark:
    """The watermark of these settings."""
    if settings.strategy == "synthid":
        return SynthID(settings.watermark_key)
    return GreenList(settings.watermark_key, settings.watermark_bias)


def _live_beams(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    return replace(plain, loop=live_beams)


def _diverse_beams(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    config = plain.config | {"num_beams": settings.beam_groups * settings.beams_per_group}
    options = {"beam_groups": settings.beam_groups, "diversity_penalty": settings.diversity_penalty}
    return replace(plain, config=config, loop=diverse_beams, options=options)


def _constrained_beams(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    # A word is taken as it stands within a sentence, after a space.
    encode = loaded.tokenizer.encode
    phrases = [tuple(encode(f" {word}", add_special_tokens=False)) for word in settings.forced_words]
    if not phrases:
        return replace(plain, loop=live_beams)
    return replace(plain, loop=constrained_beams, options={"phrases": phrases})


def _contrastive(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    options = {"penalty_alpha": settings.penalty_alpha, "candidates": settings.candidates}
    return replace(plain, loop=contrastive, options=options)


def _dola(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    return replace(plain, loop=dola, options={"dola_layers": settings.dola_layers})


def _prompt_lookup(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    config = {"prompt_lookup_num_tokens": settings.draft_tokens, "max_matching_ngram_size": settings.matching_ngram}
    return replace(plain, config=plain.config | config, loop=speculative)


def _assisted(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    config = plain.config | {"num_assistant_tokens": settings.draft_tokens} | GUESSING
    return replace(plain, config=config, loop=speculative)


def _universal_assisted(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    return replace(_assisted(loaded, settings, plain), through_text=True)


def _early_exit(loaded: Loaded, settings: Settings, plain: Plan) -> Plan:
    if settings.exit_layer >= loaded.layers:
        raise BadSetting(
            f"{loaded.row.label} has {loaded.layers} layers, so it can exit after layer 1 to {loaded.layers - 1}, "
            f"not after {settings.exit_layer}."
        )
    assisted = _assisted(loaded, settings, plain)
    return replace(assisted, config=assisted.config | {"assistant_early_exit": settings.exit_layer})


RUNS: dict[str, Run] = {
    "tokens": _tokens,
    "watermark": _watermark,
    "live_beams": _live_beams,
    "diverse_beams": _diverse_beams,
    "constrained_beams": _constrained_beams,
    "contrastive": _contrastive,
    "dola": _dola,
    "assisted": _assisted,
    "universal_assisted": _universal_assisted,
    "prompt_lookup": _prompt_lookup,
    "early_exit": _early_exit,
}
LISTENERS: dict[Callable | None, tuple[str, ...]] = {
    live_beams: ("on_beams",),
    diverse_beams: ("on_beams",),
    constrained_beams: ("on_beams",),
    contrastive: ("on_token",),
    dola: ("on_token",),
    speculative: ("on_token", "on_guess"),
    tokens: ("on_token", "on_guess"),
}
WATCHES = (None, live_beams, speculative, tokens)  # what `generate` gives as well when it is not watched
