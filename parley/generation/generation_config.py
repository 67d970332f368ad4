"""Turns checked settings into the arguments of `generate`. Every argument is explicit."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from parley.errors import BadSetting
from parley.generation.encoding import encode_inside, encode_typed
from parley.generation.loaded_model import LoadedModel
from parley.generation.prefix_cache import croppable, new_cache
from parley.generation.prompt import Prompt
from parley.generation.reasoning_parser import split_thought
from parley.generation.streaming import AnswerStreamer
from parley.models.formats.config_fields import COPIED, UNUSED, config_fields
from parley.models.precision import OPENVINO
from parley.positions import Rotation
from parley.settings import OPTIONS, Settings
from parley.strategies import Strategy
from parley.strategies.decoders.sampling import DrawFrom
from parley.strategies.processors import order
from parley.strategies.processors.answer_form import AnswerForm, Thought
from parley.strategies.processors.given_tokens import GivenTokens
from parley.strategies.processors.repetition_penalty import RepetitionPenalty
from parley.strategies.processors.samplers.banned_words import BannedWords
from parley.strategies.processors.samplers.dry import Dry
from parley.strategies.processors.samplers.dynamic_temperature import DynamicTemperature
from parley.strategies.processors.samplers.logit_bias import LogitBias
from parley.strategies.processors.samplers.mirostat import Mirostat
from parley.strategies.processors.samplers.occurrence_penalties import FrequencyPenalty, PresencePenalty
from parley.strategies.processors.samplers.top_n_sigma import TopNSigma
from parley.strategies.processors.samplers.xtc import Xtc
from parley.strategies.processors.thinking_budget import ThinkingBudget
from parley.strategies.requirements import RECURRENT, ModelTraits

# Numbers with which a CPU computes the same logits for several tokens in one pass as for one token at a time.
EXACT = ("float32", "int8")
DECODE_LOOP = "decode_loop.decode_loop"


@dataclass(frozen=True)
class GenerationPlan:
    """The arguments of `generate`, without the prompt, the seed and the callbacks."""

    strategy: Strategy
    config: dict[str, Any]  # fields of a GenerationConfig, as plain data
    max_length: int  # the maximum number of tokens of prompt and answer together
    decoder: Callable[..., torch.Tensor] | None = None  # for `custom_generate`; None: transformers' own loop
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the decoder, as plain data
    processors: tuple[LogitsProcessor, ...] = ()
    draft: LoadedModel | None = None

    @property
    def order(self) -> list[str]:
        """The settings that change the logits, in the order of their processors."""
        on = {name for name in order.WARPERS | COPIED if self.config.get(name) not in (None, OPTIONS[name].neutral)}
        on |= {order.setting_of(each) for each in self.processors}
        return [name for name in order.SETTINGS if name in on]

    @property
    def cross_tokenizer(self) -> bool:
        """Whether draft tokens are converted through the text."""
        return self.draft is not None and self.strategy.cross_tokenizer

    @property
    def _takes_generator(self) -> bool:
        return self.decoder is not None and self.strategy.decoder == DECODE_LOOP

    def draws(self, generator: torch.Generator) -> AbstractContextManager[Any]:
        """While it is entered, all draws of `generate` in this thread come from `generator`."""
        return DrawFrom(generator) if self.config["do_sample"] and not self._takes_generator else nullcontext()

    def arguments(
        self, streamer: AnswerStreamer, generator: torch.Generator, recorder: Callable[..., None] | None = None
    ) -> dict[str, Any]:
        """The keyword arguments for `generate`. The output goes to `streamer`, and how it was found to `recorder`."""
        callbacks: dict[str, Callable[..., None]] = {
            "on_token": streamer.take,
            "on_beams": streamer.show,
            "on_draft": streamer.count_draft,
        }
        events: dict[str, Callable[..., None]] = {name: callbacks[name] for name in self.strategy.events}
        if recorder:
            events |= {self.strategy.record: _both(recorder, events.get(self.strategy.record))}
        return {
            "generation_config": GenerationConfig(**self.config),
            "logits_processor": LogitsProcessorList(self.processors),
            **({"custom_generate": self.decoder, **events} if self.decoder else {"streamer": streamer}),
            **self.options,
            **({"generator": generator} if self._takes_generator else {}),
            **({"draft": self.draft.model} if self.draft else {}),
            **(
                {"tokenizers": (streamer.tokenizer, self.draft.tokenizer)}
                if self.draft and self.cross_tokenizer
                else {}
            ),
        }


def _both(first: Callable[..., None], second: Callable[..., None] | None) -> Callable[..., None]:
    def call(*values: Any) -> None:
        first(*values)
        if second:
            second(*values)

    return call


def plan_generation(
    loaded: LoadedModel,
    strategy: Strategy,
    settings: Settings,
    prompt: Prompt,
    draft: LoadedModel | None = None,
    *,
    given: Sequence[int] = (),
) -> GenerationPlan:
    """The plan for an answer of this model to the prompt by this strategy, within the context window.

    `draft` is the draft model, for a strategy that needs one. The answer begins with the `given` tokens. Raises
    `BadSetting` for what the model cannot do.
    """
    if refusal := strategy.refusal(_traits(loaded, draft)):
        raise BadSetting(refusal)
    if "exit_layer" in strategy.settings and settings.exit_layer >= loaded.layers:
        raise BadSetting(
            f"{loaded.spec.label} has {loaded.layers} layers, so it can exit after layer 1 to {loaded.layers - 1}, "
            f"not after {settings.exit_layer}."
        )
    special_tokens = loaded.model.generation_config
    config = config_fields(strategy, settings)
    config["max_new_tokens"] = min(settings.max_new_tokens, loaded.context - prompt.length)
    config |= {name: getattr(special_tokens, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
    _check_guidance(loaded, config, prompt)
    late = _late_processors(loaded, strategy, settings, config)
    if strategy.watermark:
        config["watermarking_config"] = strategy.mark(settings)
    plan = GenerationPlan(
        strategy=strategy,
        config=config,
        max_length=prompt.length + config["max_new_tokens"],
        decoder=strategy.decode(),
        options=dict(strategy.options(settings, functools.partial(encode_typed, loaded.tokenizer))),
        processors=(
            *sorted((*_processors(loaded, strategy, settings, prompt), *late), key=_place),
            *([GivenTokens(given, prompt.length)] if given else []),
        ),
        draft=draft if strategy.drafts else None,
    )
    return _with_lookup(loaded, plan) if strategy.decoder == DECODE_LOOP else plan


def _check_guidance(loaded: LoadedModel, config: Mapping[str, Any], prompt: Prompt) -> None:
    """Raises `BadSetting` where the text beside the answer would have to be read again, which guidance does not do."""
    if config["guidance_scale"] is None:
        return
    begin = prompt.negative.length if prompt.negative else 1  # without it guidance begins at the last token
    rotation, end = Rotation(loaded.model.config.get_text_config(decoder=True)), begin + config["max_new_tokens"]
    if rotation.rereads(begin, end - 1):
        most = rotation.last_like(begin, end) + 1 - begin
        raise BadSetting(
            f"Guidance cannot follow {loaded.spec.label} past its first window. "
            f"Set guidance_scale to 1, or max_new_tokens to {most} at most."
        )


def _with_lookup(loaded: LoadedModel, plan: GenerationPlan) -> GenerationPlan:
    """The plan with our decode loop, with or without drafts from the text; without the loop where it cannot run.

    Drafts are on where they do not change the answer: not with guidance, and not with a watermark, whose processor
    keeps a state of every call.
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
    if not croppable(cache, 0):  # some layers have a state, which needs further arguments of `generate`
        return plain
    return replace(plan, options={"lookup": lookup and croppable(cache, plan.max_length)})


def _place(processor: LogitsProcessor) -> int:
    return order.SETTINGS.index(order.setting_of(processor))


def _processors(
    loaded: LoadedModel, strategy: Strategy, settings: Settings, prompt: Prompt
) -> Iterator[LogitsProcessor]:
    """The processors that transformers does not have, which run before temperature and truncation."""
    end = sorted(loaded.end_ids)
    if settings.repetition_penalty != OPTIONS["repetition_penalty"].neutral:
        yield RepetitionPenalty(settings.repetition_penalty, loaded.model.generation_config.eos_token_id or ())
    if settings.presence_penalty:
        yield PresencePenalty(settings.presence_penalty, prompt.length, end)
    if settings.frequency_penalty:
        yield FrequencyPenalty(settings.frequency_penalty, prompt.length, end)
    if settings.dry_multiplier:
        yield Dry(settings.dry_multiplier, settings.dry_base, settings.dry_allowed_length, loaded.tokenizer)
    if biases := _biases(loaded, settings):
        yield LogitBias(biases)
    if settings.banned_words:
        yield BannedWords(settings.banned_words, loaded.tokenizer, prompt.length)
    if settings.answer_form != OPTIONS["answer_form"].neutral:
        yield _answer_form(loaded, settings, prompt, end)
    if settings.thinking_budget and not settings.plain and loaded.reasoning.thinks(settings):
        yield _thinking_budget(loaded, settings.thinking_budget, prompt)
    if "top_n_sigma" in strategy.uses and settings.top_n_sigma:
        yield TopNSigma(settings.top_n_sigma)


def _answer_form(loaded: LoadedModel, settings: Settings, prompt: Prompt, end: Sequence[int]) -> AnswerForm:
    """Raises `BadSetting` where no token ends an answer, because its form may leave no other one."""
    if not end:
        sentence = (
            f"{loaded.spec.label} has no token that ends an answer, so it cannot keep a form. Set answer_form to free."
        )
        raise BadSetting(sentence, name="answer_form", valid=["free"])
    encode, dialect = functools.partial(encode_inside, loaded.tokenizer), loaded.dialect
    begun, thought = list[int](), None
    if prompt.in_reasoning or (not settings.plain and not prompt.continues and loaded.reasoning.thinks(settings)):
        mark = dialect.answer or dialect.closing
        blank = mark[len(mark.rstrip()) :]
        opening = () if prompt.in_reasoning else encode(dialect.opening)
        thought = Thought(opening, mark.strip(), encode(blank) if blank else ())
    elif prompt.continues and not settings.plain:
        begun = encode_typed(loaded.tokenizer, split_thought(prompt.messages[-1].content)[0])
    return AnswerForm(
        settings.answer_form, settings.answer_pattern, loaded.tokenizer, end, prompt.length, begun, thought
    )


def _late_processors(
    loaded: LoadedModel, strategy: Strategy, settings: Settings, config: dict[str, Any]
) -> list[LogitsProcessor]:
    """Temperature, truncation and what stands behind them, where the settings ask for that; then `config` has none.

    As in llama.cpp, Mirostat takes the place of all truncation.
    """
    chosen = [name for name in order.AFTER_TEMPERATURE if name in strategy.uses and getattr(settings, name)]
    if not chosen:
        return []
    values = {name: config[name] for name in order.WARPERS if config[name] not in (None, OPTIONS[name].neutral)}
    config |= {name: UNUSED[name] for name in order.WARPERS}
    made: list[LogitsProcessor] = []
    if "dynatemp_range" in chosen:
        values.pop("temperature", None)
        spread, exponent = settings.dynatemp_range, settings.dynatemp_exponent
        made.append(DynamicTemperature(settings.temperature, spread, exponent))
    if "mirostat_tau" in chosen:
        values = {name: value for name, value in values.items() if name == "temperature"}
        made.append(Mirostat(settings.mirostat_tau, settings.mirostat_eta))
    elif "xtc_probability" in chosen:
        made.append(Xtc(settings.xtc_probability, settings.xtc_threshold, settings.seed or 0))
    return [*made, *(order.warper(name, value, loaded.model.device) for name, value in values.items())]


def _biases(loaded: LoadedModel, settings: Settings) -> dict[int, float]:
    """The bias of each token. Raises `BadSetting` for one that the model does not have."""
    found, vocabulary = dict[int, float](), loaded.model.config.get_text_config().vocab_size
    for key, bias in settings.biases.items():
        tokens = [int(key)] if key.isdecimal() else loaded.tokenizer.encode(key, add_special_tokens=False)
        if not tokens or max(tokens) >= vocabulary:
            sentence = f"{loaded.spec.label} has no token {key[:40]!r}. Its tokens are 0 to {vocabulary - 1}."
            raise BadSetting(sentence, name="logit_bias", valid={"maximum": vocabulary - 1})
        found |= dict.fromkeys(tokens, float(bias))
    return found


def _thinking_budget(loaded: LoadedModel, budget: int, prompt: Prompt) -> ThinkingBudget:
    """Raises `BadSetting` where no token ends a thought, because only a token can be forced at a certain place."""
    dialect, added = loaded.dialect, loaded.tokenizer.added_tokens_decoder
    opening, closing, rest = (
        loaded.tokenizer.encode(mark, add_special_tokens=False) if mark else []
        for mark in (dialect.opening.strip(), dialect.closing.strip(), dialect.restart + dialect.answer)
    )
    if added.keys().isdisjoint(closing):
        raise BadSetting(
            f"{loaded.spec.label} has no token that ends a thought, so it cannot keep a thinking budget. "
            "Set thinking_budget to 0."
        )
    if dialect.restart:  # the same token ends a thought and the answer
        closing, rest = [*closing, *rest], []
    return ThinkingBudget(budget, prompt.length, [] if prompt.in_reasoning else opening, closing, rest)


@functools.cache
def _can_exit(forward: Callable[..., Any]) -> bool:
    """Whether the code of a model heeds a smaller `num_hidden_layers`, by which transformers exits early."""
    return "num_hidden_layers]" in inspect.getsource(forward)


def _traits(loaded: LoadedModel, draft: LoadedModel | None) -> ModelTraits:
    recurrent = not RECURRENT.isdisjoint(getattr(loaded.model.config.get_text_config(), "layer_types", None) or ())
    stateful = bool(getattr(loaded.model, "_is_stateful", False))
    engine = loaded.plan.engine
    exits = engine == OPENVINO or _can_exit(type(loaded.model.base_model).forward)
    traits = ModelTraits(loaded.spec.label, loaded.layers, stateful, recurrent, engine=engine, exits=exits)
    if draft is None:
        return traits
    same = draft.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    return replace(traits, draft=draft.spec.label, same_tokenizer=same)
