"""How models write the calls of tools, and how such a text is read. One row is one dialect."""

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parley.answer_forms import WrittenCall
from parley.messages import ToolCall

NO_TOOLS = "The chat template of {label} knows no tools. Leave out tools, or choose another model."
_DECODER = json.JSONDecoder(strict=False)
_BAR = "\N{FULLWIDTH VERTICAL LINE}"  # of the marks of DeepSeek
_HUB = "https://huggingface.co/"
Read = Callable[[str], list[ToolCall] | None]  # the calls in a text between two marks; None where it is no call


@dataclass(frozen=True)
class ToolDialect:
    """The marks of one way of writing calls, and what stands between them."""

    name: str
    models: str  # who writes it
    source: str
    read: Read
    opening: str  # before the calls; empty: the answer begins with them
    closing: str = ""  # after the calls; empty: they go to the end of the answer
    other: tuple[str, ...] = ()  # further marks that may come before the calls
    written: WrittenCall = field(kw_only=True)  # for a call that is forced
    evidence: tuple[str, ...] = ()  # all of these stand in the literal text of the template

    @property
    def openings(self) -> tuple[str, ...]:
        """All marks after which calls follow."""
        return tuple(filter(None, (self.opening, *self.other)))

    @property
    def marks(self) -> tuple[str, ...]:
        """Every mark of the dialect."""
        return tuple(filter(None, (*self.openings, self.closing)))


def _calls(values: Any) -> list[ToolCall] | None:
    """The calls that these values of JSON stand for."""
    items = values if isinstance(values, list) else [values]
    calls = [_call(each) for each in items]
    return [each for each in calls if each] if calls and all(calls) else None


def _call(value: Any) -> ToolCall | None:
    value = value.get("function", value) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return None
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(name, str) or not name:
        return None
    given: Any = next((value[each] for each in ("arguments", "parameters") if each in value), {})
    return ToolCall(name, given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))


def json_calls(text: str) -> list[ToolCall] | None:
    """Objects or lists of objects, with blank space, commas or semicolons between them."""
    calls, at = list[ToolCall](), 0
    while text[at:].strip(" \n\r\t;,"):
        at += len(text[at:]) - len(text[at:].lstrip(" \n\r\t;,"))
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        if not (found := _calls(value)):
            return None
        calls += found
    return calls or None


_XML_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>")
_XML_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_XML_END = re.compile(r"\s*(?:</function>|\Z)")
_KEY = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>\s*", re.DOTALL)
_VALUE_END = re.compile(r"\s*</arg_value>")
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\][^\[]*)?(?:\[ARGS\])?\s*(?=[{])")
_NEXT_CALL = re.compile(r"(?:\[TOOL_CALLS\]|[\s,;])*(?=\S)")
_SEPARATOR, _BEGIN, _END = (f"<{_BAR}tool▁{each}{_BAR}>" for each in ("sep", "call▁begin", "call▁end"))
_DEEPSEEK = re.compile(rf"{_BEGIN}(?:function{_SEPARATOR})?([^\n{{<]+?)(?:{_SEPARATOR})?\s*(?:```json)?\s*(?=\{{)")
_DEEPSEEK_END = re.compile(rf"\s*(?:```)?\s*(?:{_END}|\Z)")
_PYTHON_NAME, _PYTHON_KEY = re.compile(r"([\w.-]+)\(\s*"), re.compile(r"([^=()]+?)\s*=\s*")
_PYTHON_COMMA = re.compile(r"\s*(?:,\s*)?")


def _value(text: str) -> Any:
    """The value that a text stands for: JSON, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _written(name: str, arguments: Mapping[str, Any]) -> ToolCall:
    return ToolCall(name.strip(), json.dumps(arguments, ensure_ascii=False))


def xml_calls(text: str) -> list[ToolCall] | None:
    """<function=add><parameter=a>1</parameter></function>."""
    calls, at = list[ToolCall](), 0
    while name := _XML_FUNCTION.match(text, at):
        values, at = dict[str, Any](), name.end()
        while given := _XML_PARAMETER.match(text, at):
            values[given[1].strip()], at = _value(given[2]), given.end()
        if not (end := _XML_END.match(text, at)):
            return None
        calls.append(_written(name[1], values))
        at = end.end()
    return calls or None


def hermes_calls(text: str) -> list[ToolCall] | None:
    """An object, or a function in XML."""
    return xml_calls(text) if text.lstrip().startswith("<function=") else json_calls(text)


def key_calls(text: str) -> list[ToolCall] | None:
    """The name, and then <arg_key>a</arg_key><arg_value>1</arg_value>."""
    name = text.partition("<arg_key>")[0].strip()
    if not name or not re.fullmatch(r"[\w.-]+", name):
        return json_calls(text)
    arguments, at = dict[str, Any](), 0
    while key := _KEY.search(text, at):
        try:  # a text in quotes may have the mark of the end in it
            value, begin = _DECODER.raw_decode(text, key.end())
            end = _VALUE_END.match(text, begin)
        except (ValueError, RecursionError):
            end = None
        if end is None:
            if not (end := _VALUE_END.search(text, key.end())):
                return None
            value = text[key.end() : end.start()]
        arguments[key[1].strip()], at = value, end.end()
    return [_written(name, arguments)]


def named_calls(text: str) -> list[ToolCall] | None:
    """A list of objects, or the name and the object of the arguments, of each call after a mark of its own."""
    calls, at = list[ToolCall](), 0
    while mark := _NEXT_CALL.match(text, at):
        named = _NAMED.match(text, mark.end())
        begin = named.end() if named else mark.end()
        try:  # a text in quotes may have the mark in it
            value, at = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError):
            return None
        found = [ToolCall(named[1], text[begin:at])] if named else _calls(value)
        if not found:
            return None
        calls += found
    return calls or None


def deepseek_calls(text: str) -> list[ToolCall] | None:
    """The name behind a mark, and the arguments, perhaps as a block of code."""
    calls, at = list[ToolCall](), 0
    while head := _DEEPSEEK.search(text, at):
        try:  # a text in quotes may have the marks in it
            _, end = _DECODER.raw_decode(text, head.end())
        except (ValueError, RecursionError):
            return None
        if not (closed := _DEEPSEEK_END.match(text, end)):
            return None
        calls.append(ToolCall(head[1].strip(), text[head.end() : end]))
        at = closed.end()
    return calls or None


def python_calls(text: str) -> list[ToolCall] | None:
    """[add(a=1, b=2)], as Python writes calls. The values may be JSON."""
    if calls := _json_keywords(text.strip()):
        return calls
    try:
        body = ast.parse(text.strip(), mode="eval").body
        items = body.elts if isinstance(body, ast.List) else [body]
        return list(map(_python_call, items)) or None
    except (SyntaxError, ValueError, RecursionError):
        return None


def _json_keywords(text: str) -> list[ToolCall] | None:
    """Calls of which all values are JSON; then the names may be others than those of Python."""
    body, at, calls = text.removeprefix("[").removesuffix("]"), 0, list[ToolCall]()
    while name := _PYTHON_NAME.match(body, at):
        values, at = dict[str, Any](), name.end()
        while key := _PYTHON_KEY.match(body, at):
            try:
                values[key[1]], at = _DECODER.raw_decode(body, key.end())
            except (ValueError, RecursionError):
                return None
            at = _after_comma(body, at)
        if not body.startswith(")", at):
            return None
        calls.append(_written(name[1], values))
        at = _after_comma(body, at + 1)
    return calls if at == len(body) else None


def _after_comma(text: str, at: int) -> int:
    found = _PYTHON_COMMA.match(text, at)
    return found.end() if found else at


def _python_call(item: ast.expr) -> ToolCall:
    if not isinstance(item, ast.Call) or item.args:
        raise ValueError("This is no call with names for all values.")
    values = {each.arg: ast.literal_eval(each.value) for each in item.keywords if each.arg}
    return ToolCall(ast.unparse(item.func), json.dumps(values, ensure_ascii=False))


HERMES = ToolDialect(
    "hermes",
    "Qwen, Hermes, SmolLM3, Granite 4 and most others",
    f"{_HUB}Qwen/Qwen3-0.6B",
    hermes_calls,
    "<tool_call>",
    "</tool_call>",
    written=WrittenCall('<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>'),
)
# The first row whose evidence is found is the dialect of a model; so `HERMES`, whose marks others have, comes last.
DIALECTS: dict[str, ToolDialect] = {
    row.name: row
    for row in (
        ToolDialect(
            "deepseek",
            "DeepSeek V3, R1",
            f"{_HUB}deepseek-ai/DeepSeek-V3-0324",
            deepseek_calls,
            f"<{_BAR}tool▁calls▁begin{_BAR}>",
            f"<{_BAR}tool▁calls▁end{_BAR}>",
            written=WrittenCall(
                f"<{_BAR}tool▁calls▁begin{_BAR}>{_BEGIN}function{_SEPARATOR}NAME\n```json\nARGUMENTS\n```{_END}"
                f"<{_BAR}tool▁calls▁end{_BAR}>"
            ),
            evidence=(f"<{_BAR}tool▁calls▁begin{_BAR}>",),
        ),
        ToolDialect(
            "mistral",
            "Mistral, Ministral",
            f"{_HUB}mistralai/Mistral-7B-Instruct-v0.3",
            named_calls,
            "[TOOL_CALLS]",
            written=WrittenCall('[TOOL_CALLS] [{"name": "NAME", "arguments": ARGUMENTS}]'),
            evidence=("[TOOL_CALLS]",),
        ),
        ToolDialect(
            "glm",
            "GLM 4.5 and later",
            f"{_HUB}zai-org/GLM-4.5",
            key_calls,
            "<tool_call>",
            "</tool_call>",
            written=WrittenCall(
                "<tool_call>NAME\nARGUMENTS</tool_call>", "<arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n"
            ),
            evidence=("<tool_call>", "<arg_key>"),
        ),
        ToolDialect(
            "lfm",
            "LFM2",
            f"{_HUB}LiquidAI/LFM2-1.2B",
            python_calls,
            "<|tool_call_start|>",
            "<|tool_call_end|>",
            written=WrittenCall("<|tool_call_start|>[NAME(ARGUMENTS)]<|tool_call_end|>", "KEY=VALUE", joint=", "),
            evidence=("<|tool_list_start|>",),
        ),
        ToolDialect(
            "granite",
            "Granite 3, Phi-4-mini",
            f"{_HUB}ibm-granite/granite-3.3-8b-instruct",
            json_calls,
            "<|tool_call|>",
            "<|/tool_call|>",
            written=WrittenCall('<|tool_call|>[{"name": "NAME", "arguments": ARGUMENTS}]'),
            evidence=("<|tool_call|>",),
        ),
        ToolDialect(
            "llama",
            "Llama 3.1 to 3.3",
            f"{_HUB}meta-llama/Llama-3.1-8B-Instruct",
            json_calls,
            "",
            other=("<|python_tag|>",),
            written=WrittenCall('{"name": "NAME", "parameters": ARGUMENTS}'),
            evidence=('{"name": function name, "parameters":',),
        ),
        HERMES,
    )
}


def find(literals: str) -> ToolDialect:
    """The dialect of a template that takes tools, by its literal text; the usual one where none is found."""
    return next((row for row in DIALECTS.values() if all(mark in literals for mark in row.evidence)), HERMES)
