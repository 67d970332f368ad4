"""From checked settings to the arguments of `generate`, with nothing left to a default."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from parley.errors import BadSetting
from parley.generation.loaded_model import LoadedModel
from parley.generation.prefix_cache import croppable, new_cache
from parley.generation.prompt import Prompt
from parley.generation.reasoning_parser import THINK_CLOSE, THINK_OPEN
from parley.generation.streaming import AnswerStreamer
from parley.models.precision import OPENVINO
from parley.settings import OPTIONS, Settings
from parley.strategies import Strategy
from parley.strategies.processors.thinking_budget import ThinkingBudget
from parley.strategies.processors.top_n_sigma import TopNSigma
from parley.strategies.requirements import RECURRENT, ModelTraits

# The settings that a `GenerationConfig` has too; what stands there where the strategy does not use them, because
# `generate` would take what is left out from the model or from itself; the neutral values for which None stands there.
COPIED = {name: option.copied for name, option in OPTIONS.items() if option.copied}
NEUTRAL = {"do_sample": False, "early_stopping": False} | {name: mark.unused for name, mark in COPIED.items()}
OFF = {name: OPTIONS[name].neutral for name, mark in COPIED.items() if mark.none_if_neutral}
EXACT = ("float32", "int8")  # numbers in which several tokens at once round, on a CPU, as one after the other
DECODE_LOOP = "decode_loop.decode_loop"


@dataclass(frozen=True)
class GenerationPlan:
    """What `generate` is called with, but for the prompt, the seed and the callbacks."""

    strategy: Strategy
    config: dict[str, Any]  # fields of a GenerationConfig, all plain data
    max_length: int  # tokens of the prompt and the answer together, at most
    decoder: Callable[..., torch.Tensor] | None = None  # for `custom_generate`; None: `generate` itself decodes
    options: dict[str, Any] = field(default_factory=dict)  # the decoder's own arguments, plain data
    processors: tuple[LogitsProcessor, ...] = ()
    draft: LoadedModel | None = None

    @property
    def cross_tokenizer(self) -> bool:
        """Whether the draft's tokens are converted through the text."""
        return self.draft is not None and self.strategy.cross_tokenizer

    def arguments(self, streamer: AnswerStreamer) -> dict[str, Any]:
        """The keyword arguments for `generate`; what it makes goes to `streamer`."""
        callbacks = {"on_token": streamer.take, "on_beams": streamer.show, "on_draft": streamer.count_draft}
        events = {name: callbacks[name] for name in self.strategy.events}
        return {
            "generation_config": GenerationConfig(**self.config),
            "logits_processor": LogitsProcessorList(self.processors),
            **({"custom_generate": self.decoder, **events} if self.decoder else {"streamer": streamer}),
            **self.options,
            **({"draft": self.draft.model} if self.draft else {}),
            **(
                {"tokenizers": (streamer.tokenizer, self.draft.tokenizer)}
                if self.draft and self.cross_tokenizer
                else {}
            ),
        }


def plan_generation(
    loaded: LoadedModel, strategy: Strategy, settings: Settings, prompt: Prompt, draft: LoadedModel | None = None
) -> GenerationPlan:
    """How this model answers the prompt by this strategy, as far as the context window reaches.

    `draft` is the draft model, where the strategy wants one. Raises `BadSetting` for what the model cannot do.
    """
    if refusal := strategy.refusal(_traits(loaded, draft)):
        raise BadSetting(refusal)
    if "exit_layer" in strategy.settings and settings.exit_layer >= loaded.layers:
        raise BadSetting(
            f"{loaded.spec.label} has {loaded.layers} layers, so it can exit after layer 1 to {loaded.layers - 1}, "
            f"not after {settings.exit_layer}."
        )
    own = loaded.model.generation_config
    config = NEUTRAL | {
        "do_sample": strategy.samples,
        "max_new_tokens": min(settings.max_new_tokens, loaded.context - prompt.length),
    }
    config |= {"eos_token_id": own.eos_token_id, "pad_token_id": own.pad_token_id, "bos_token_id": own.bos_token_id}
    for name in strategy.uses:
        value = getattr(settings, name)
        if name in COPIED and OFF.get(name) != value:
            config[name] = value
    config |= strategy.config(settings)
    if strategy.watermark:
        config["watermarking_config"] = strategy.mark(settings)
    plan = GenerationPlan(
        strategy=strategy,
        config=config,
        max_length=prompt.length + config["max_new_tokens"],
        decoder=strategy.decode(),
        options=dict(strategy.options(settings, lambda text: loaded.tokenizer.encode(text, add_special_tokens=False))),
        processors=tuple(_processors(loaded, strategy, settings, prompt)),
        draft=draft if strategy.drafts else None,
    )
    return _with_lookup(loaded, plan) if strategy.decoder == DECODE_LOOP else plan


def _with_lookup(loaded: LoadedModel, plan: GenerationPlan) -> GenerationPlan:
    """The decode loop with or without drafts from the text, or `generate` itself where the loop cannot run.

    Drafts are made where they change nothing: not beside a negative prompt, nor with a watermark, whose state follows
    every token that it was asked for.
    """
    model, chosen = loaded.model, loaded.plan
    lookup = plan.config["guidance_scale"] is None and not plan.strategy.watermark
    if chosen.engine == OPENVINO:
        return replace(plan, options={"lookup": lookup})
    plain = replace(plan, decoder=None)
    exact = chosen.device == "cpu" and chosen.numbers in EXACT and model._supports_default_dynamic_cache()
    if plan.strategy.watermark or not exact:
        return plain
    cache = new_cache(model)
    if not croppable(cache, 0):  # some layers have a state, which needs all that `generate` hands on
        return plain
    return replace(plan, options={"lookup": lookup and croppable(cache, plan.max_length)})


def _processors(
    loaded: LoadedModel, strategy: Strategy, settings: Settings, prompt: Prompt
) -> Iterator[LogitsProcessor]:
    """Those that transformers does not have, in their place before temperature and truncation."""
    if settings.thinking and settings.thinking_budget:
        marks = [loaded.tokenizer.encode(mark, add_special_tokens=False) for mark in (THINK_OPEN, THINK_CLOSE)]
        opening = [] if prompt.in_reasoning else marks[0]
        yield ThinkingBudget(settings.thinking_budget, prompt.length, opening, marks[1])
    if "top_n_sigma" in strategy.uses and settings.top_n_sigma:
        yield TopNSigma(settings.top_n_sigma)


def _traits(loaded: LoadedModel, draft: LoadedModel | None) -> ModelTraits:
    recurrent = not RECURRENT.isdisjoint(getattr(loaded.model.config.get_text_config(), "layer_types", None) or ())
    stateful = bool(getattr(loaded.model, "_is_stateful", False))
    known = ModelTraits(loaded.spec.label, loaded.layers, stateful, recurrent, engine=loaded.plan.engine)
    if draft is None:
        return known
    same = draft.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    return replace(known, draft=draft.spec.label, same_tokenizer=same)
