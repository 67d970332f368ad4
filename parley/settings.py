"""Every setting of a turn. The controls, API parameters, checks and the table in the documents are made from it."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from parley import stop_strings, strategies
from parley.config import MAX_NEW_TOKENS
from parley.errors import BadSetting, instead_of
from parley.option import Carried, Copied, Hints, Option, is_number, option_of
from parley.shaping_settings import OBJECTS, ShapingSettings

MAX_TOKENS = MAX_NEW_TOKENS.read()  # the slider of the page, the API and the documents all take it from the field
# Texts that may be given as a list of lines, and how each line is written.
LISTS: dict[str, Callable[[str], str]] = {
    "stop": stop_strings.escape,
    "force_words": str,
    "bad_words": str,
    "answer_pattern": str,
}


class Settings(ShapingSettings):
    """The settings of one turn. Every value has the right type and is within its bounds.

    `Settings.check` makes one from the values of a visitor, with readable errors. The constructor raises pydantic's
    `ValidationError`; `model_copy` checks nothing.
    """

    model: str = Field("", title="Model", description="Which model answers.", max_length=300)
    strategy: str = Field(
        "sampling", title="Decoding strategy", description="How the next token is chosen.", max_length=40
    )
    mode: Annotated[Literal["chat", "plain text"], Hints(rare=True)] = Field(
        "chat",
        title="Mode",
        description="Chat answers a message. Plain text goes on where your text ends, without a chat template, and "
        "reads nothing else.",
    )
    temperature: Annotated[float, Hints(step=0.05, neutral=1.0), Copied()] = Field(
        0.7,
        title="Temperature",
        description="Below 1 sharpens the distribution, above 1 flattens it; 0 always takes the most likely token.",
        ge=0.0,
        le=2.0,
    )
    top_p: Annotated[float, Hints(step=0.01, neutral=1.0, off=True), Copied()] = Field(
        0.9,
        title="Top-p",
        description="Keep the smallest set of tokens whose probabilities add up to this; 1 keeps all.",
        ge=0.05,
        le=1.0,
    )
    top_k: Annotated[int, Hints(step=1, neutral=0, off=True), Copied()] = Field(
        50, title="Top-k", description="Keep this many of the most likely tokens; 0 keeps all.", ge=0, le=1000
    )
    min_p: Annotated[float, Hints(step=0.01, off=True), Copied(none_if_neutral=True)] = Field(
        0.0,
        title="Min-p",
        description="Drop tokens less likely than this fraction of the most likely one; 0 drops none.",
        ge=0.0,
        le=1.0,
    )
    typical_p: Annotated[float, Hints(step=0.01, rare=True, off=True), Copied()] = Field(
        1.0,
        title="Typical-p",
        description="Keep the tokens whose information is closest to the entropy, until their probabilities add up to "
        "this; 1 keeps all.",
        ge=0.05,
        le=1.0,
    )
    top_n_sigma: Annotated[float, Hints(step=0.1, rare=True, off=True)] = Field(
        0.0,
        title="Top-n-sigma",
        description="Keep tokens within this many standard deviations of the highest logit; 0 keeps all.",
        ge=0.0,
        le=10.0,
    )
    top_h: Annotated[float, Hints(step=0.01, rare=True, off=True), Copied(none_if_neutral=True)] = Field(
        0.0,
        title="Top-h",
        description="Keep the most likely tokens up to this fraction of the distribution's entropy; 0 keeps all.",
        ge=0.0,
        le=1.0,
    )
    epsilon_cutoff: Annotated[float, Hints(step=0.0005, rare=True, off=True), Copied(none_if_neutral=True)] = Field(
        0.0, title="Epsilon cutoff", description="Drop tokens less likely than this; 0 drops none.", ge=0.0, le=0.1
    )
    eta_cutoff: Annotated[float, Hints(step=0.0005, rare=True, off=True), Copied(none_if_neutral=True)] = Field(
        0.0,
        title="Eta cutoff",
        description="Drop tokens less likely than this, or than a limit that falls as entropy rises; 0 drops none.",
        ge=0.0,
        le=0.1,
    )
    num_beams: Annotated[int, Hints(step=1), Copied(unused=1)] = Field(
        4, title="Beams", description="How many candidate answers are kept.", ge=2, le=8
    )
    length_penalty: Annotated[float, Hints(step=0.1, rare=True), Copied(unused=1.0)] = Field(
        1.0,
        title="Length penalty",
        description="Above 0 favours long answers, below 0 short ones.",
        ge=-2.0,
        le=2.0,
    )
    beam_groups: Annotated[int, Hints(step=1)] = Field(
        2, title="Groups", description="How many groups of beams there are.", ge=2, le=4
    )
    beams_per_group: Annotated[int, Hints(step=1)] = Field(
        2, title="Beams a group", description="How many candidate answers each group keeps.", ge=1, le=4
    )
    diversity_penalty: Annotated[float, Hints(step=0.1)] = Field(
        0.5,
        title="Diversity penalty",
        description="How much the score of a token is lowered, in nats, for each beam of another group that has just "
        "chosen it.",
        ge=0.0,
        le=5.0,
    )
    force_words: Annotated[str, Hints(lines=2)] = Field(
        "",
        title="Words that must occur",
        description="Words or phrases that the answer must contain, one on each line.",
        max_length=200,
    )
    penalty_alpha: Annotated[float, Hints(step=0.05)] = Field(
        0.6, title="Penalty alpha", description="How strongly repetition is penalised.", ge=0.0, le=1.0
    )
    candidates: Annotated[int, Hints(step=1)] = Field(
        4, title="Candidates", description="How many of the most likely tokens are tried.", ge=2, le=20
    )
    dola_layers: Literal["low", "high"] = Field(
        "high",
        title="Early layers",
        description="Compare the last layer with the lower or the upper half of the layers.",
    )
    draft_tokens: Annotated[int, Hints(step=1)] = Field(
        5, title="Draft tokens", description="How many tokens are proposed at a time.", ge=1, le=20
    )
    matching_ngram: Annotated[int, Hints(step=1)] = Field(
        2, title="Matching tokens", description="The maximum number of last tokens to search for.", ge=1, le=5
    )
    exit_layer: Annotated[int, Hints(step=1)] = Field(
        2,
        title="Exit after layer",
        description="How many of the first layers propose the draft tokens.",
        ge=1,
        le=200,
    )
    repetition_penalty: Annotated[float, Hints(step=0.01, rare=True, off=True)] = Field(
        1.0,
        title="Repetition penalty",
        description="Above 1 makes tokens that have occurred before less likely, but not those that end a turn.",
        ge=1.0,
        le=2.0,
    )
    no_repeat_ngram_size: Annotated[int, Hints(step=1, rare=True, off=True), Copied(none_if_neutral=True)] = Field(
        0, title="No-repeat n-gram", description="No n tokens in a row occur twice; 0 allows all.", ge=0, le=10
    )
    guidance_scale: Annotated[float, Hints(step=0.1, rare=True, off=True), Copied(none_if_neutral=True)] = Field(
        1.0,
        title="Guidance scale",
        description="Above 1 steers the answer away from the answer to the negative prompt; 1 has no effect.",
        ge=1.0,
        le=5.0,
    )
    negative_prompt: Annotated[str, Hints(lines=2, rare=True)] = Field(
        "",
        title="Negative prompt",
        description="Instructions that the answer is steered away from. If empty, the answer is steered away from one "
        "without the question.",
        max_length=4000,
    )
    watermark_bias: Annotated[float, Hints(step=0.1)] = Field(
        4.0, title="Bias", description="How much is added to the logits of the green list.", ge=0.5, le=10.0
    )
    watermark_key: int = Field(
        15_485_863, title="Watermark key", description="Needed to detect the watermark.", ge=1, le=2**32 - 1
    )
    max_new_tokens: Annotated[int, Hints(step=1)] = Field(
        min(512, MAX_TOKENS),
        title="Max new tokens",
        description="The answer ends after at most this many tokens.",
        ge=1,
        le=MAX_TOKENS,
    )
    thinking_budget: Annotated[int, Hints(step=1, rare=True, off=True)] = Field(
        0,
        title="Thinking budget",
        description="Thinking ends after this many tokens; 0 sets no limit.",
        ge=0,
        le=4096,
    )
    stop: Annotated[str, Hints(lines=2)] = Field(
        "",
        title="Stop strings",
        description="The answer ends before any of these texts. One on each line, with \\n for a line break and "
        "\\\\ for a backslash.",
        max_length=900,
    )
    seed: int | None = Field(
        None, title="Seed", description="Equal seeds give equal text; empty means a new seed.", ge=0, le=2**32 - 1
    )
    thinking: bool = Field(False, title="Thinking", description="Let the model think before it answers.")
    reasoning_effort: Literal["default", "none", "minimal", "low", "medium", "high", "xhigh", "max"] = Field(
        "default",
        title="Reasoning effort",
        description="How much the model thinks; the default is that of its chat template.",
    )
    answer_start: Annotated[str, Hints(lines=1, rare=True)] = Field(
        "",
        title="Begin the answer with",
        description="The model goes on from these words. They open the answer or, where it thinks, the thought.",
        max_length=4000,
    )
    system_prompt: Annotated[str, Hints(lines=2)] = Field(
        "", title="System prompt", description="Who the model should be, and how to answer.", max_length=4000
    )

    # What only programs give. It is no setting that a visitor sees, and nothing of it is stored with an answer.
    tools: Annotated[tuple[Mapping[str, Any], ...], Carried()] = Field((), exclude=True)  # for the chat template
    prompt_ids: Annotated[tuple[int, ...], Carried()] = Field((), exclude=True)  # the prompt itself, in plain text
    num_return_sequences: Annotated[int, Carried()] = Field(1, exclude=True)  # so many hypotheses of one search

    @field_validator("*", mode="before")
    @classmethod
    def _prepare(cls, value: Any, field: ValidationInfo) -> Any:
        """The value, with a whole float as an int, a list of lines as text, and lone surrogates in text replaced."""
        line = LISTS.get(field.field_name or "")
        if line and isinstance(value, list) and all(isinstance(each, str) for each in value):
            value = "\n".join(map(line, value))
        if field.field_name in OBJECTS and isinstance(value, Mapping):
            value = json.dumps(value) if value else ""
        if isinstance(value, str):
            return replace_lone_surrogates(value)
        if not isinstance(value, int | float | None):
            raise ValueError("This is neither text nor a number.")  # pydantic would accept numpy's numbers as floats
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @classmethod
    def check(cls, values: Mapping[str, Any], recommended: Mapping[str, Any] | None = None) -> "Settings":
        """Settings from untrusted values. None or a missing name means the model's recommendation, or the default.

        Raises `BadSetting` with a sentence that names the setting and its bounds.
        """
        if unknown := sorted(set(values) - set(OPTIONS)):
            other = instead_of(unknown[0], OPTIONS)
            raise BadSetting(
                f"There is no setting called {unknown[0]!r}.{other} The settings are: {', '.join(OPTIONS)}.",
                name=unknown[0],
                valid=list(OPTIONS),
            )
        chosen = {name: o.default for name, o in OPTIONS.items()} | dict(recommended or {})
        chosen |= {name: value for name, value in values.items() if value is not None}
        try:
            settings = cls(**chosen)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            raise BadSetting(_refusal(OPTIONS[name], chosen[name]), name=name, valid=OPTIONS[name].schema) from None
        _ = settings.effective_strategy, settings.stop_strings, settings.forced_words, settings.banned_words
        _ = settings.biases, settings.grammar
        return settings

    @property
    def effective_strategy(self) -> strategies.Strategy:
        """The strategy, or the one that it is at temperature 0. Raises `BadSetting` where there is none."""
        row = strategies.find(self.strategy)
        if self.temperature > 0 or "temperature" not in row.settings:
            return row
        if not row.at_zero:
            sentence = f"{row.label} draws at random, so its temperature must be above 0. Raise it."
            raise BadSetting(sentence, name="temperature", valid={"exclusiveMinimum": 0})
        return strategies.find(row.at_zero)

    @property
    def plain(self) -> bool:
        """Whether the model continues a text, and no conversation is rendered."""
        return self.mode == "plain text"

    @property
    def sets_effort(self) -> bool:
        """Whether a level of reasoning effort is asked for."""
        return self.reasoning_effort != OPTIONS["reasoning_effort"].neutral

    @property
    def steers_away(self) -> bool:
        """Whether the strategy uses guidance, and there is a negative prompt."""
        guided = "guidance_scale" in self.effective_strategy.uses and self.guidance_scale > 1
        return guided and bool(self.negative_prompt.strip())

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The lines of `stop`, without their escapes; at most 8 of up to 50 characters."""
        found = tuple(map(stop_strings.unescape, filter(None, self.stop.replace("\r\n", "\n").split("\n"))))
        if len(found) > 8 or any(len(text) > 50 for text in found):
            sentence = "Give at most 8 stop strings of at most 50 characters each, one on each line."
            raise BadSetting(sentence, name="stop", valid={"maxItems": 8, "maxLength": 50})
        return found

    @property
    def forced_words(self) -> tuple[str, ...]:
        """The lines of `force_words`, at most 5."""
        found = tuple(line.strip() for line in self.force_words.splitlines() if line.strip())
        if len(found) > 5:
            sentence = "Give at most 5 words or phrases that must occur, one on each line."
            raise BadSetting(sentence, name="force_words", valid={"maxItems": 5})
        return found


def replace_lone_surrogates(text: str) -> str:
    """The text with "?" for each lone surrogate.

    A lone surrogate remains where a program cuts an emoji in two. It can be neither tokenised nor sent to a page.
    """
    return text.encode("utf-8", "replace").decode()


def check_strategies(rows: Iterable[strategies.Strategy]) -> None:
    """Raises `ValueError` for a row that uses a setting that `Settings` does not have."""
    for row in rows:
        if unknown := sorted({*row.uses, *row.watermark_settings} - set(OPTIONS)):
            raise ValueError(f"The strategy {row.name!r} uses settings that do not exist: {', '.join(unknown)}.")


def _refusal(o: Option, value: Any) -> str:
    """The error sentence for a value that pydantic refused."""
    if o.kind is bool:
        return f"{o.label} must be true or false."
    if o.kind is str:
        if not isinstance(value, str):
            return f"{o.label} must be text{', or a list of texts' if o.name in LISTS else ''}."
        if len(value) > o.high:
            return f"{o.label} may have at most {o.high} characters; this one has {len(value)}."
        return f"{o.label} must be one of {', '.join(o.choices)}; {value[:40]!r} is not."
    number = f"a whole number from {o.low} to {o.high}" if o.kind is int else f"a number from {o.low} to {o.high}"
    return f"{o.label} must be {number}" + (f"; {str(value)[:40]} is not." if is_number(value) else ".")


_rare = ShapingSettings.model_fields
OPTIONS: dict[str, Option] = {
    name: option_of(name, field)
    for name, field in sorted(Settings.model_fields.items(), key=lambda each: each[0] in _rare)
    if not any(isinstance(mark, Carried) for mark in field.metadata)
}
check_strategies(strategies.STRATEGIES.values())
