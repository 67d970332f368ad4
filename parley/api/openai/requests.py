"""What a request of the OpenAI API may hold: one row for each parameter. All settings of Parley may stand beside."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parley.api.turns.program_turn import MAX_ANSWERS, MAX_CANDIDATES
from parley.errors import BadSetting, instead_of
from parley.settings import OPTIONS

MAX_PROMPTS = 64  # of one request
# The setting that a parameter stands for, where it has another name.
SETTINGS = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
Mode = Literal["raw_logprobs", "processed_logprobs"]
Number = float | None


class Request(BaseModel):
    """What all requests have. Other names are settings of Parley, or refused."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    model: str | None = Field(None, description="Which model answers; the default one if it is left out.")
    stream: bool | None = Field(None, description="Whether the answer comes piece by piece.")
    stream_options: dict[str, Any] | None = Field(None, description='{"include_usage": true} asks for the usage.')
    stop: str | list[str] | None = Field(None, description="The answer ends before any of these texts.")
    seed: int | None = Field(None, description="Equal seeds give equal text.")
    n: int | None = Field(
        None,
        ge=1,
        le=MAX_ANSWERS,
        description="How many answers, from one reading of the prompt: drawn, or the best hypotheses of a search.",
    )
    temperature: Number = Field(None, description="See the setting.")
    top_p: Number = Field(None, description="See the setting.")
    presence_penalty: Number = Field(None, ge=-2, le=2, description="See the setting.")
    frequency_penalty: Number = Field(None, ge=-2, le=2, description="See the setting.")
    logit_bias: dict[str, float] | None = Field(None, description="See the setting.")
    logprobs_mode: Mode = Field("raw_logprobs", description="By the model alone, or after the processors.")
    prompt_cache_key: str | None = Field(
        None, max_length=200, description="Requests with the same key share what was read of their prompts."
    )
    user: str | None = Field(None, description="Ignored.")

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def processed(self) -> bool:
        """Whether the probabilities are those after the processors."""
        return self.logprobs_mode == "processed_logprobs"

    def settings(self) -> dict[str, Any]:
        """The settings of Parley that the request names, in either way, unchecked. Raises `ChatError`."""
        extra = dict(self.model_extra or {})
        if unknown := next((name for name in extra if name not in OPTIONS), ""):
            known = list(dict.fromkeys((*type(self).model_fields, *OPTIONS)))
            sentence = f"There is no parameter {unknown[:80]!r}.{instead_of(unknown, known)}"
            raise BadSetting(sentence, name=unknown[:80], valid=known)
        names = [name for name in type(self).model_fields if SETTINGS.get(name, name) in OPTIONS]
        given = {SETTINGS.get(name, name): getattr(self, name) for name in names if getattr(self, name) is not None}
        if isinstance(stop := given.get("stop"), str):
            given["stop"] = [stop]
        if isinstance(seed := given.get("seed"), int):
            given["seed"] = seed % 2**32
        return extra | given


class ChatRequest(Request):
    """A request for /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(description="The conversation.")
    max_tokens: int | None = Field(None, description="The answer ends after at most this many tokens.")
    max_completion_tokens: int | None = Field(None, description="The newer name of max_tokens.")
    logprobs: bool | None = Field(None, description="Whether the tokens of the answer are told.")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_CANDIDATES, description="So many candidates for each of them.")
    response_format: dict[str, Any] | None = Field(
        None, description="text, json_object, or json_schema with a schema."
    )
    tools: list[dict[str, Any]] | None = Field(None, description="The tools that the model may call.")
    tool_choice: str | dict[str, Any] | None = Field(
        None, description="auto, none, required, or a function by its name."
    )
    parallel_tool_calls: bool | None = Field(None, description="false: only the first call of an answer is told.")
    reasoning_effort: str | None = Field(None, description="See the setting.")
    metadata: dict[str, Any] | None = Field(None, description="Ignored.")
    store: bool | None = Field(None, description="Ignored: nothing is stored.")
    service_tier: str | None = Field(None, description="Ignored.")
    safety_identifier: str | None = Field(None, description="Ignored.")

    @property
    def candidates(self) -> int | None:
        """How many candidates are told of each token; None where the tokens are not told."""
        if not self.logprobs and self.top_logprobs:
            raise BadSetting("top_logprobs needs logprobs. Set logprobs to true.", name="logprobs", valid=True)
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Request):
    """A request for /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(description="Texts, or the tokens of texts.")
    max_tokens: int | None = Field(16, ge=0, description="Each text goes on for at most this many tokens.")
    echo: bool | None = Field(None, description="Whether the prompt comes before what follows.")
    logprobs: int | None = Field(None, ge=0, le=MAX_CANDIDATES, description="So many candidates for each token.")
    best_of: int | None = Field(None, description="Only the value of n.")
    suffix: str | None = Field(None, description="Only empty.")

    def prompts(self) -> list[str] | list[list[int]]:
        """Each prompt. Raises `BadSetting` where there are none, or too many."""
        one = isinstance(self.prompt, str) or (self.prompt and isinstance(self.prompt[0], int))
        prompts: Any = [self.prompt] if one else self.prompt
        if not 1 <= len(prompts) <= MAX_PROMPTS or not all(prompts):
            sentence = f"A request has 1 to {MAX_PROMPTS} prompts, none of which is empty."
            raise BadSetting(sentence, name="prompt", valid={"minItems": 1, "maxItems": MAX_PROMPTS})
        return prompts


class TokenizeRequest(BaseModel):
    """A request for /tokenize."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, description="Whose tokens they are.")
    prompt: str | None = Field(None, description="A text.")
    messages: list[dict[str, Any]] | None = Field(None, description="Or a conversation, for the chat template.")
    tools: list[dict[str, Any]] | None = Field(None, description="The tools, for the chat template.")
    add_special_tokens: bool = Field(True, description="Whether a text gets the tokens that begin one.")


def read(kind: type[Any], body: Any) -> Any:
    """The request in this body. Raises `BadSetting`, which names the parameter and what would be valid."""
    if not isinstance(body, Mapping):
        raise BadSetting("The body must be a JSON object with the parameters by their names.")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise _refusal(kind, name, first["type"], body) from None


def _refusal(kind: type[BaseModel], name: str, problem: str, body: Mapping[str, Any]) -> BadSetting:
    schema = kind.model_json_schema()["properties"].get(name)
    if schema is None:
        known, shown = list(kind.model_fields), name[:80]
        return BadSetting(f"There is no parameter {shown!r}.{instead_of(name, known)}", name=shown, valid=known)
    valid = {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
    if problem == "missing":
        return BadSetting(f"The parameter {name!r} is missing.", name=name, valid=valid)
    return BadSetting(f"{name} must be {_wanted(schema)}; {str(body.get(name))[:40]} is not.", name=name, valid=valid)


def _wanted(schema: Mapping[str, Any]) -> str:
    """What a parameter may be, in words."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    return " or ".join(dict.fromkeys(map(_kind, kinds)))


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    names = {"string": "text", "boolean": "true or false", "integer": "a whole number", "number": "a number"}
    names |= {"object": "an object", "array": "a list"}
    word = names.get(schema.get("type", ""), "another value")
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema.get("type") == "array" and (kind := names.get(schema.get("items", {}).get("type", ""))):
        return f"a list with {kind} in each place"
    return word if low is None else f"{word} of {low} or more" if high is None else f"{word} from {low} to {high}"
