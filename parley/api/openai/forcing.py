"""The one place where what a request forces an answer to be becomes a setting of the turn: a grammar."""

import json
from typing import Any

from parley.answer_forms import call_grammar
from parley.api.openai.requests import ChatRequest
from parley.errors import BadSetting
from parley.models.tools.dialects import ToolDialect

FORMATS = ("text", "json_object", "json_schema")
CHOICES = ("auto", "none", "required")


def forced_format(request: ChatRequest) -> dict[str, Any]:
    """The settings for `response_format`. Raises `BadSetting` for what is none."""
    given = request.response_format or {"type": "text"}
    kind = given.get("type")
    if kind not in FORMATS:
        sentence = f"The type of response_format must be one of {', '.join(FORMATS)}, not {str(kind)[:40]!r}."
        raise BadSetting(sentence, name="response_format", valid={"type": list(FORMATS)})
    if kind != "json_schema":
        return {"answer_form": "json"} if kind == "json_object" else {}
    described = given.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        sentence = 'response_format must have the schema, as {"type": "json_schema", "json_schema": {"schema": {…}}}.'
        raise BadSetting(sentence, name="response_format", valid={"json_schema": {"schema": {"type": "object"}}})
    return {"answer_form": "json_schema", "answer_pattern": json.dumps(schema)}


def forces_call(request: ChatRequest) -> bool:
    """Whether a tool has to be called. Raises `BadSetting` for a `tool_choice` that is none, or without tools."""
    choice = request.tool_choice
    if choice is None or choice in CHOICES[:2]:
        return False
    if choice != "required" and _named(choice) is None:
        sentence = f"tool_choice must be one of {', '.join(CHOICES)}, or name a function, not {str(choice)[:40]!r}."
        raise BadSetting(sentence, name="tool_choice", valid=list(CHOICES))
    names = [each.get("function", {}).get("name") for each in request.tools or ()]
    if not names or (choice != "required" and _named(choice) not in names):
        sentence = "tool_choice asks for a tool that is not there. Give it in tools."
        raise BadSetting(sentence, name="tool_choice", valid=list(CHOICES[:2]))
    return True


def forced_call(request: ChatRequest, dialect: ToolDialect) -> dict[str, Any]:
    """The settings that force one call of a tool. Raises `BadSetting` for a schema that its dialect cannot write."""
    name = _named(request.tool_choice)
    functions = [each["function"] for each in request.tools or ()]
    wanted = [(each["name"], each.get("parameters")) for each in functions if name in (None, each["name"])]
    return {"answer_form": "grammar", "answer_pattern": call_grammar(dialect.written, wanted)}


def _named(choice: Any) -> str | None:
    """The name of the function in `tool_choice`."""
    function = choice.get("function") if isinstance(choice, dict) else None
    return function.get("name") if isinstance(function, dict) else None
