"""Every option of a turn, written once: controls, API parameters, checks and the README table are made from it."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parley import strategies
from parley.errors import BadSetting


@dataclass(frozen=True)
class Option:
    """What a reader and a checker need to know of one field of `Settings`."""

    name: str
    kind: type
    default: Any
    label: str
    help: str
    low: float | None = None  # for text: unused
    high: float | None = None  # for text: the most characters
    step: float | None = None  # None: a number to type, not to slide to
    lines: int = 1
    optional: bool = False  # None is a value of its own
    choices: tuple[str, ...] = ()  # for text: all that it may be
    rare: bool = False  # folded away on the page
    off: Any = None  # the value that changes nothing, where that is not the default

    @property
    def neutral(self) -> Any:
        """The value that changes nothing."""
        return self.default if self.off is None else self.off


def option(default: Any, label: str, help: str, **rest: Any) -> Any:
    """A dataclass field that carries its `Option` (all but name and kind) as metadata."""
    return dataclasses.field(default=default, metadata={"label": label, "help": help, **rest})


@dataclass(frozen=True)
class Settings:
    """One turn's options, checked: every value has its type and lies within its bounds.

    Make one with `Settings.check`; the constructor itself checks nothing.
    """

    model: str = option("", "Model", "Which model answers.", high=300)
    strategy: str = option("sampling", "Decoding strategy", "How the next token is chosen.", high=40)
    temperature: float = option(
        0.7,
        "Temperature",
        "Below 1 sharpens the distribution, above 1 flattens it.",
        low=0.05,
        high=2.0,
        step=0.05,
        off=1.0,
    )
    top_p: float = option(
        0.9,
        "Top-p",
        "Keep the smallest set of tokens whose probabilities add up to this; 1 keeps all.",
        low=0.05,
        high=1.0,
        step=0.01,
        off=1.0,
    )
    top_k: int = option(
        50, "Top-k", "Keep this many of the most likely tokens; 0 keeps all.", low=0, high=1000, step=1, off=0
    )
    min_p: float = option(
        0.0,
        "Min-p",
        "Drop tokens less likely than this fraction of the likeliest; 0 drops none.",
        low=0.0,
        high=1.0,
        step=0.01,
    )
    typical_p: float = option(
        1.0,
        "Typical-p",
        "Keep the tokens whose surprise is nearest to the expected one, up to this much probability; 1 keeps all.",
        low=0.05,
        high=1.0,
        step=0.01,
        rare=True,
    )
    top_n_sigma: float = option(
        0.0,
        "Top-n-sigma",
        "Keep tokens within so many standard deviations of the highest logit; 0 keeps all.",
        low=0.0,
        high=10.0,
        step=0.1,
        rare=True,
    )
    top_h: float = option(
        0.0,
        "Top-h",
        "Keep the likeliest tokens up to this share of the distribution's entropy; 0 keeps all.",
        low=0.0,
        high=1.0,
        step=0.01,
        rare=True,
    )
    epsilon_cutoff: float = option(
        0.0,
        "Epsilon cutoff",
        "Drop tokens less likely than this; 0 drops none.",
        low=0.0,
        high=0.1,
        step=0.0005,
        rare=True,
    )
    eta_cutoff: float = option(
        0.0,
        "Eta cutoff",
        "Drop tokens less likely than this, or than a bound that falls with entropy; 0 drops none.",
        low=0.0,
        high=0.1,
        step=0.0005,
        rare=True,
    )
    num_beams: int = option(4, "Beams", "How many hypotheses are kept.", low=2, high=8, step=1)
    length_penalty: float = option(
        1.0,
        "Length penalty",
        "Above 0 favours long hypotheses, below 0 short ones.",
        low=-2.0,
        high=2.0,
        step=0.1,
        rare=True,
    )
    beam_groups: int = option(
        2, "Groups", "How many groups of beams choose one after the other.", low=2, high=4, step=1
    )
    beams_per_group: int = option(2, "Beams a group", "How many hypotheses each group keeps.", low=1, high=4, step=1)
    diversity_penalty: float = option(
        0.5,
        "Diversity penalty",
        "What a token loses, in nats, for each beam of an earlier group that has just taken it.",
        low=0.0,
        high=5.0,
        step=0.1,
    )
    force_words: str = option(
        "", "Words that must occur", "Words or phrases that the answer must have, one a line.", high=200, lines=2
    )
    penalty_alpha: float = option(
        0.6, "Penalty alpha", "How much a token loses for repeating what was said.", low=0.0, high=1.0, step=0.05
    )
    candidates: int = option(4, "Candidates", "How many of the likeliest tokens are tried.", low=2, high=20, step=1)
    dola_layers: str = option(
        "high",
        "Early layers",
        "Compare with the lower or the upper half of the layers.",
        high=4,
        choices=("low", "high"),
    )
    draft_tokens: int = option(
        5, "Draft tokens", "How many tokens are guessed ahead at a time.", low=1, high=20, step=1
    )
    matching_ngram: int = option(
        2, "Matching tokens", "At most so many last tokens are looked for in the prompt.", low=1, high=5, step=1
    )
    exit_layer: int = option(
        2, "Exit after layer", "The guesses come from the model's first so many layers.", low=1, high=200, step=1
    )
    repetition_penalty: float = option(
        1.0,
        "Repetition penalty",
        "Above 1 makes tokens that occurred before less likely.",
        low=1.0,
        high=2.0,
        step=0.01,
        rare=True,
    )
    no_repeat_ngram_size: int = option(
        0,
        "No-repeat n-gram",
        "No so many tokens in a row occur twice; 0 allows all.",
        low=0,
        high=10,
        step=1,
        rare=True,
    )
    guidance_scale: float = option(
        1.0,
        "Guidance scale",
        "Above 1 presses the answer away from what the model would say after the negative prompt; 1 does not.",
        low=1.0,
        high=5.0,
        step=0.1,
        rare=True,
    )
    negative_prompt: str = option(
        "",
        "Negative prompt",
        "Instructions to be steered away from; empty steers away from an answer that has not read the question.",
        high=4000,
        lines=2,
        rare=True,
    )
    watermark_bias: float = option(
        4.0, "Bias", "How much the logits of the green tokens are raised.", low=0.5, high=10.0, step=0.1
    )
    watermark_key: int = option(
        15_485_863, "Watermark key", "Who has it can find the mark in the text.", low=1, high=2**32 - 1
    )
    max_new_tokens: int = option(
        512, "Max new tokens", "The answer ends after at most this many tokens.", low=1, high=4096, step=1
    )
    thinking_budget: int = option(
        0,
        "Thinking budget",
        "A thought is closed after so many tokens; 0 lets it end by itself.",
        low=0,
        high=4096,
        step=1,
        rare=True,
    )
    stop: str = option(
        "",
        "Stop strings",
        "The answer ends before any of these; one a line, \\n for a line break.",
        high=400,
        lines=2,
        rare=True,
    )
    seed: int | None = option(
        None, "Seed", "Equal seeds give equal text; empty draws a fresh one.", low=0, high=2**32 - 1, optional=True
    )
    thinking: bool = option(False, "Thinking", "Let the model think before it answers.")
    system_prompt: str = option("", "System prompt", "Who the model should be, and how to answer.", high=4000, lines=3)

    @classmethod
    def check(cls, values: Mapping[str, Any], recommended: Mapping[str, Any] | None = None) -> "Settings":
        """Settings from untrusted values; None or a missing name means the model's recommendation, else the default.

        Raises `BadSetting`, with a sentence that names the option and its bounds.
        """
        if unknown := sorted(set(values) - set(OPTIONS)):
            raise BadSetting(f"There is no setting called {unknown[0]!r}. The settings are: {', '.join(OPTIONS)}.")
        fallback = {name: o.default for name, o in OPTIONS.items()} | dict(recommended or {})
        given = {name: value for name, value in values.items() if value is not None}
        checked = {name: _checked(o, given.get(name, fallback[name])) for name, o in OPTIONS.items()}
        settings = cls(**checked)
        strategies.find(settings.strategy)
        _ = settings.stop_strings, settings.forced_words
        return settings

    @property
    def steers_away(self) -> bool:
        """Whether the strategy is guided by a negative prompt, and there is one."""
        guided = "guidance_scale" in strategies.find(self.strategy).uses and self.guidance_scale > 1
        return guided and bool(self.negative_prompt.strip())

    @property
    def stop_strings(self) -> tuple[str, ...]:
        r"""The lines of `stop`, with `\n` and `\t` read as line break and tab; at most 8 of up to 50 characters."""
        found = tuple(line.replace("\\n", "\n").replace("\\t", "\t") for line in self.stop.splitlines() if line)
        if len(found) > 8 or any(len(text) > 50 for text in found):
            raise BadSetting("Give at most 8 stop strings of at most 50 characters each, one a line.")
        return found

    @property
    def forced_words(self) -> tuple[str, ...]:
        """The lines of `force_words`, at most 5."""
        found = tuple(line.strip() for line in self.force_words.splitlines() if line.strip())
        if len(found) > 5:
            raise BadSetting("Give at most 5 words or phrases that must occur, one a line.")
        return found


def replace_lone_surrogates(text: str) -> str:
    """The text with "?" for each half of a character: what is left where a program cuts an emoji in two, and what can
    neither be tokenised nor sent to a page.
    """
    return text.encode("utf-8", "replace").decode()


def _kind(field: dataclasses.Field) -> type:
    return (typing.get_args(field.type) or (field.type,))[0]  # `int | None` is an int that may be left empty


def _checked(o: Option, value: Any) -> Any:
    if value is None and o.optional:
        return None
    if o.kind is str:
        if not isinstance(value, str):
            raise BadSetting(f"{o.label} must be text.")
        if o.high is not None and len(value) > o.high:
            raise BadSetting(f"{o.label} may have at most {o.high:g} characters; this one has {len(value)}.")
        if o.choices and value not in o.choices:
            raise BadSetting(f"{o.label} must be one of {', '.join(o.choices)}; {value[:40]!r} is not.")
        return replace_lone_surrogates(value)
    if o.kind is bool:
        if not isinstance(value, bool):
            raise BadSetting(f"{o.label} must be true or false.")
        return value
    return _checked_number(o, value)


def _checked_number(o: Option, value: Any) -> float | int:
    number = (
        f"a whole number from {o.low:.0f} to {o.high:.0f}" if o.kind is int else f"a number from {o.low} to {o.high}"
    )
    if not is_number(value):
        raise BadSetting(f"{o.label} must be {number}.")
    if not o.low <= value <= o.high or (o.kind is int and value != int(value)):
        raise BadSetting(f"{o.label} must be {number}; {str(value)[:40]} is not.")
    return o.kind(value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, which true and false are not; a whole one may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


OPTIONS: dict[str, Option] = {
    f.name: Option(name=f.name, kind=_kind(f), default=f.default, **f.metadata) for f in dataclasses.fields(Settings)
}
