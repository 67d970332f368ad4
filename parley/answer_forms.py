"""The forms that an answer can be forced into, one row each, and the grammar of llguidance for each of them.

https://github.com/guidance-ai/llguidance. Its Lark syntax: docs/syntax.md there.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parley.errors import BadSetting

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# As Python and most models write JSON. Blank space that is free would let a small model write nothing else.
JSON_STYLE: "JsonCompileOptions" = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MAX_ERROR = 160  # characters of an error of llguidance that are shown


def _json_schema(text: str) -> str:
    from llguidance import LLMatcher

    schema = json.loads(text)
    if not isinstance(schema, dict | bool):
        raise ValueError('a schema is an object such as {"type": "object"}')
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_STYLE)


def _regex(text: str) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_regex(text)


def _choices(text: str) -> str:
    from llguidance import LLMatcher

    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not lines:
        raise ValueError("there is no choice")
    return LLMatcher.grammar_from_lark(f"start: {' | '.join(json.dumps(each, ensure_ascii=False) for each in lines)}")


def _lark(text: str) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_lark(text)


FORMS: dict[str, Callable[[str], str]] = {
    "json": lambda _: _json_schema('{"type": "object"}'),
    "json_schema": _json_schema,
    "regex": _regex,
    "choices": _choices,
    "grammar": _lark,
}
NAMES = {
    "json_schema": "JSON schema",
    "regex": "regular expression",
    "choices": "list of choices",
    "grammar": "grammar",
}


def grammar_of(form: str, text: str) -> str:
    """The grammar, as llguidance takes it. Raises `BadSetting` with what is wrong with the text."""
    from llguidance import LLMatcher

    if form != "json" and not text.strip():
        sentence = (
            f"The answer form {form} needs a {NAMES[form]} in answer_pattern. Write one, or choose the form free."
        )
        raise BadSetting(sentence, name="answer_pattern", valid={"minLength": 1})
    try:
        grammar = FORMS[form](text)
        wrong, errors = LLMatcher.validate_grammar_with_warnings(grammar)
    except (ValueError, RecursionError) as problem:
        wrong, errors = True, [str(problem)]
    if wrong:
        said = " ".join(errors[0].split())[:MAX_ERROR]
        raise BadSetting(f"This {NAMES[form]} cannot be used: {said}. Correct it.", name="answer_pattern")
    return grammar


@dataclass(frozen=True)
class WrittenCall:
    """How a model writes a call."""

    call: str  # with NAME and ARGUMENTS in it
    argument: str = ""  # one argument with KEY and VALUE in it, which is JSON; empty: all of them are one JSON object
    joint: str = ""  # between two arguments


def call_grammar(written: WrittenCall, tools: list[tuple[str, Any]]) -> str:
    """A Lark grammar of one call of one of the tools, each with its name and the schema of its arguments.

    Raises `BadSetting` for a schema from which the arguments cannot be told, where they are written one by one.
    """
    rules = list[str]()
    for i, (name, schema) in enumerate(tools):
        before, _, after = written.call.replace("NAME", name).partition("ARGUMENTS")
        rules.append(f"tool{i}: {json.dumps(before)} arguments{i} {json.dumps(after)}")
        if written.argument:
            rules += _argument_rules(written, f"arguments{i}", name, schema or {})
        else:
            rules.append(f"arguments{i}: {_json_value({**(schema or {}), 'type': 'object'})}")
    return "\n".join([f"start: {' | '.join(f'tool{i}' for i in range(len(tools)))}", *rules])


def _json_value(schema: Any) -> str:
    """The rule of a JSON value of this schema."""
    styled = {**schema, "x-guidance": JSON_STYLE} if isinstance(schema, dict) else schema
    return f"%json {json.dumps(styled)}"


def _argument_rules(written: WrittenCall, rule: str, name: str, schema: dict[str, Any]) -> list[str]:
    """The rules of arguments that are written one by one, in the order of the schema."""
    known: dict[str, Any] = schema.get("properties", {})
    needed = set(schema.get("required", ()))
    if not needed <= set(known) or not {"anyOf", "oneOf", "allOf", "$ref"}.isdisjoint(schema):
        sentence = f"The parameters of {name[:80]!r} must be an object that names each of its properties."
        raise BadSetting(sentence, name="tools", valid={"type": "object", "properties": {}})
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}  # what a property may refer to
    joint, rules = json.dumps(written.joint), list[str]()
    for i, (key, value) in enumerate(known.items()):
        before, _, after = written.argument.replace("KEY", key).partition("VALUE")
        one, later, begin = f"{rule}_{i}", f"{rule}_after{i + 1}", f"{rule}_from{i + 1}"
        rules.append(f"{one}: {json.dumps(before)} {one}_value {json.dumps(after)}")
        rules.append(f"{one}_value: {_json_value({**value, **shared} if isinstance(value, dict) else value)}")
        follows = f"{joint} {one}" if written.joint else one
        optional = key not in needed
        rules.append(f"{rule}_after{i}: {f'({follows})?' if optional else follows} {later}")
        rules.append(f"{rule}_from{i}: {one} {later}" + (f" | {begin}" if optional else ""))
    ends = [f'{rule}_{each}{len(known)}: ""' for each in ("after", "from")]
    return [f"{rule}: {rule}_from0", *rules, *ends]
