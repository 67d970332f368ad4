"""The settings that shape what an answer may say beyond the strategy: penalties, samplers, words. See `Settings`."""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from parley.answer_forms import grammar_of
from parley.config import MAX_NEW_TOKENS
from parley.errors import BadSetting
from parley.option import Copied, Hints, is_number

OBJECTS = ("logit_bias", "answer_pattern")  # texts that may be given as the object that their JSON stands for
Form = Literal["free", "json", "json_schema", "regex", "choices", "grammar"]


class ShapingSettings(BaseModel):
    """All of them are rare, and none has an effect by default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    presence_penalty: Annotated[float, Hints(step=0.05, rare=True, off=True)] = Field(
        0.0,
        title="Presence penalty",
        description="Taken from the logit of each token that the answer already has; below 0 it favours them.",
        ge=-2.0,
        le=2.0,
    )
    frequency_penalty: Annotated[float, Hints(step=0.05, rare=True, off=True)] = Field(
        0.0,
        title="Frequency penalty",
        description="Taken from the logit of a token as often as the answer already has it; below 0 it favours them.",
        ge=-2.0,
        le=2.0,
    )
    dry_multiplier: Annotated[float, Hints(step=0.05, rare=True, off=True)] = Field(
        0.0,
        title="DRY multiplier",
        description="Penalises tokens that would go on with a repetition, the more the longer it is; 0 is off.",
        ge=0.0,
        le=5.0,
    )
    dry_base: Annotated[float, Hints(step=0.05, rare=True)] = Field(
        1.75,
        title="DRY base",
        description="The penalty of DRY grows by this factor with each token of a repetition.",
        ge=1.0,
        le=4.0,
    )
    dry_allowed_length: Annotated[int, Hints(step=1, rare=True)] = Field(
        2,
        title="DRY allowed length",
        description="Repetitions of fewer tokens are not penalised by DRY.",
        ge=1,
        le=20,
    )
    dynatemp_range: Annotated[float, Hints(step=0.05, rare=True, off=True)] = Field(
        0.0,
        title="Dynamic temperature",
        description="The temperature varies by so much up and down: higher where the model is unsure; 0 is off.",
        ge=0.0,
        le=2.0,
    )
    dynatemp_exponent: Annotated[float, Hints(step=0.05, rare=True)] = Field(
        1.0,
        title="Dynamic temperature exponent",
        description="How the temperature follows the entropy: above 1 it rises late, below 1 early.",
        ge=0.1,
        le=5.0,
    )
    xtc_probability: Annotated[float, Hints(step=0.05, rare=True, off=True)] = Field(
        0.0,
        title="XTC probability",
        description="How often the likeliest tokens are removed where others do as well; 0 never.",
        ge=0.0,
        le=1.0,
    )
    xtc_threshold: Annotated[float, Hints(step=0.01, rare=True)] = Field(
        0.1,
        title="XTC threshold",
        description="XTC removes all tokens that are at least so likely, except for the least likely of them.",
        ge=0.01,
        le=0.5,
    )
    mirostat_tau: Annotated[float, Hints(step=0.1, rare=True, off=True)] = Field(
        0.0,
        title="Mirostat target",
        description="Mirostat 2 keeps the surprise of the text near this many bits, in the place of all cuts such as "
        "top-k; 5 is usual, 0 is off.",
        ge=0.0,
        le=10.0,
    )
    mirostat_eta: Annotated[float, Hints(step=0.01, rare=True)] = Field(
        0.1,
        title="Mirostat rate",
        description="How fast Mirostat learns from the tokens so far.",
        ge=0.01,
        le=1.0,
    )
    logit_bias: Annotated[str, Hints(lines=1, rare=True)] = Field(
        "",
        title="Logit bias",
        description='Added to the logits of tokens: JSON with ids or texts, such as {"262": -100, " owl": 2}.',
        max_length=8000,
    )
    bad_words: Annotated[str, Hints(lines=2, rare=True)] = Field(
        "",
        title="Banned words",
        description="Words or phrases that the answer must not contain, one on each line, also within longer words.",
        max_length=2000,
    )
    answer_form: Annotated[Form, Hints(rare=True)] = Field(
        "free",
        title="Answer form",
        description="Forces the answer into JSON, a JSON schema, a regular expression, one of some choices, or a Lark "
        "grammar. Thoughts stay free.",
    )
    answer_pattern: Annotated[str, Hints(lines=3, rare=True)] = Field(
        "",
        title="Schema or pattern",
        description="What the answer form needs: the schema, the expression, one choice a line, or the grammar.",
        max_length=20_000,
    )
    min_new_tokens: Annotated[int, Hints(step=1, rare=True, off=True), Copied(none_if_neutral=True)] = Field(
        0,
        title="Min new tokens",
        description="The answer does not end by itself before this many tokens; 0 lets it end at any time.",
        ge=0,
        le=MAX_NEW_TOKENS.read(),
    )

    @property
    def banned_words(self) -> tuple[str, ...]:
        """The lines of `bad_words`, at most 50."""
        found = tuple(line.strip() for line in self.bad_words.splitlines() if line.strip())
        if len(found) > 50:
            sentence = "Give at most 50 banned words or phrases, one on each line."
            raise BadSetting(sentence, name="bad_words", valid={"maxItems": 50})
        return found

    @property
    def grammar(self) -> str:
        """What the answer is forced into, for llguidance; empty where it is free."""
        return "" if self.answer_form == "free" else grammar_of(self.answer_form, self.answer_pattern)

    @property
    def biases(self) -> Mapping[str, float]:
        """What `logit_bias` adds, by the id of a token or by a text."""
        try:
            found = json.loads(self.logit_bias) if self.logit_bias.strip() else {}
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(is_number(each) and abs(each) <= 100 for each in found.values()):
            sentence = 'Logit bias must be a JSON object of tokens with numbers from -100 to 100, as {"262": -5}.'
            raise BadSetting(sentence, name="logit_bias", valid={"type": "object"})
        return found
