"""What the grammar of a forced call permits is read back by the dialect, whatever the tools are."""

import json
import random

import pytest

from parley.answer_forms import call_grammar
from parley.errors import BadSetting
from parley.models.tools.dialects import DIALECTS
from parley.models.tools.parser import split_calls
from tests.engines.openvino.asking import SHORT, answer
from tests.schemas import check_object, schema

BAR = "\N{FULLWIDTH VERTICAL LINE}"
WHOLE = {"type": "integer", "minimum": 0, "maximum": 99}
ADD = {"type": "object", "properties": {"a": WHOLE, "b": {"$ref": "#/$defs/b"}}, "required": ["a", "b"]}
ADD |= {"$defs": {"b": WHOLE}, "additionalProperties": False}
SOME = {"properties": {"a": WHOLE, "kind": {"enum": ["owl", "tea"]}, "deep": WHOLE}, "additionalProperties": False}
WRITTEN = {  # as the templates of these models write a call
    "hermes": '<tool_call>\n{"name": "add", "arguments": {"a": 7, "b": 7}}\n</tool_call>',
    "mistral": '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 7, "b": 7}}]',
    "glm": "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>7</arg_value>\n<arg_key>b</arg_key>\n"
    "<arg_value>7</arg_value>\n</tool_call>",
    "lfm": "<|tool_call_start|>[add(a=7, b=7)]<|tool_call_end|>",
    "granite": '<|tool_call|>[{"name": "add", "arguments": {"a": 7, "b": 7}}]',
    "deepseek": f"<{BAR}tool▁calls▁begin{BAR}><{BAR}tool▁call▁begin{BAR}>function<{BAR}tool▁sep{BAR}>add\n"
    f'```json\n{{"a": 7, "b": 7}}\n```<{BAR}tool▁call▁end{BAR}><{BAR}tool▁calls▁end{BAR}>',
    "llama": '{"name": "add", "parameters": {"a": 7, "b": 7}}',
}


def forced(engine, dialect, tools, **values):
    """The call that the model makes, by its name and arguments."""
    pattern = call_grammar(DIALECTS[dialect].written, tools)
    asked = {"strategy": "sampling", "temperature": 1.5, "top_p": 1.0, "max_new_tokens": 400, **values}
    made = answer(engine, SHORT, answer_form="grammar", answer_pattern=pattern, **asked)
    assert made.finish == "end", made.text
    found = split_calls(made.text, DIALECTS[dialect], over=True)
    assert found.text == "" and len(found.calls) == 1, made.text
    return found.calls[0].name, json.loads(found.calls[0].arguments)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_call_is_written_as_the_template_of_the_model_writes_it(budgie, dialect):
    seven = {"a": {"const": 7}, "b": {"const": 7}}
    pattern = call_grammar(DIALECTS[dialect].written, [("add", {**ADD, "properties": seven})])
    made = answer(budgie, SHORT, answer_form="grammar", answer_pattern=pattern, max_new_tokens=200)
    assert made.text == WRITTEN[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_of_several_tools_is_called_with_what_its_schema_allows(budgie, dialect):
    tools = [("add", ADD), ("get-owl.2", SOME), ("now", {"properties": {}, "additionalProperties": False})]
    for seed, offered in enumerate([*([each] for each in tools), tools, tools]):
        name, values = forced(budgie, dialect, offered, seed=seed)
        assert name in [each for each, _ in offered]
        if name == "add":
            assert set(values) == {"a", "b"} and all(0 <= each <= 99 for each in values.values())
        elif name == "get-owl.2":
            assert all(values.get(key, 5) in range(100) for key in ("a", "deep"))
            assert values.get("kind", "owl") in ("owl", "tea")


@pytest.mark.parametrize("dialect", ["deepseek", "glm", "lfm"])
@pytest.mark.parametrize("value", ["owl </arg_value>", "```} '", 'a "b" \\/ 🦉\n', "12", "true", True, None, -1.5, []])
def test_each_value_comes_back_as_what_it_is(budgie, dialect, value):
    only = {"properties": {"kind": {"const": value}}, "required": ["kind"], "additionalProperties": False}
    assert forced(budgie, dialect, [("see", only)]) == ("see", {"kind": value})


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS)
def test_generated_schemas_are_read_back(budgie, dialect):
    chance = random.Random(3)
    for seed in range(12):
        wanted = schema(chance)
        name, values = forced(budgie, dialect, [("see", wanted)], seed=seed)
        assert name == "see" and check_object(wanted, values)


@pytest.mark.parametrize("dialect", ["glm", "lfm"])
def test_arguments_that_have_no_names_are_refused_where_each_is_written_by_its_name(dialect):
    for unnamed in {"anyOf": [ADD, SOME]}, {"type": "object", "required": ["a"]}:
        with pytest.raises(BadSetting, match="The parameters of 'see' must be an object that names each"):
            call_grammar(DIALECTS[dialect].written, [("see", unnamed)])
