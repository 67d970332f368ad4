"""How models write calls of tools: an output of each dialect, and what is no call."""

import json

import pytest

from parley.messages import ToolCall
from parley.models.tools.dialects import DIALECTS, find
from parley.models.tools.parser import split_calls

BAR = "\N{FULLWIDTH VERTICAL LINE}"
ADD = ToolCall("add", '{"a": 1, "b": 2}')
OUTPUTS = {
    "hermes": [
        'Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>',
        "Let me see.\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
    ],
    "mistral": [
        'Let me see.[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}}]',
        'Let me see.[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}',
        'Let me see.[TOOL_CALLS]add{"a": 1, "b": 2}',
    ],
    "glm": [
        "Let me see.\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>"
    ],
    "lfm": ["Let me see.<|tool_call_start|>[add(a=1, b=2)]<|tool_call_end|>"],
    "granite": ['Let me see.<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": 2}}]'],
    "deepseek": [
        f"Let me see.<{BAR}tool▁calls▁begin{BAR}><{BAR}tool▁call▁begin{BAR}>function<{BAR}tool▁sep{BAR}>add\n"
        f'```json\n{{"a": 1, "b": 2}}\n```<{BAR}tool▁call▁end{BAR}><{BAR}tool▁calls▁end{BAR}>',
        f"Let me see.<{BAR}tool▁calls▁begin{BAR}><{BAR}tool▁call▁begin{BAR}>add<{BAR}tool▁sep{BAR}>"
        f'{{"a": 1, "b": 2}}<{BAR}tool▁call▁end{BAR}><{BAR}tool▁calls▁end{BAR}>',
    ],
    "llama": [
        '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}',
        '{"name": "add", "parameters": {"a": 1, "b": 2}}',
    ],
}
ALL = [(name, output) for name, outputs in OUTPUTS.items() for output in outputs]


def test_each_dialect_has_an_output():
    assert set(OUTPUTS) == set(DIALECTS)


@pytest.mark.parametrize(("name", "output"), ALL, ids=str)
def test_a_call_is_read_and_the_text_before_it_stays(name, output):
    found = split_calls(output, DIALECTS[name], over=True)
    assert [(each.name, json.loads(each.arguments)) for each in found.calls] == [("add", {"a": 1, "b": 2})]
    assert found.text == ("Let me see." if "Let me" in output else "")


@pytest.mark.parametrize(("name", "output"), ALL, ids=str)
def test_while_it_grows_nothing_is_taken_back(name, output):
    text, calls = "", ()
    for end in range(1, len(output) + 1):
        found = split_calls(output[:end], DIALECTS[name], over=end == len(output))
        assert found.text.startswith(text) and found.calls[: len(calls)] == calls
        text, calls = found.text, found.calls
    assert len(calls) == 1


def test_several_calls_are_several():
    one = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    assert len(split_calls(one * 3, DIALECTS["hermes"], over=True).calls) == 3
    two = '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]add[ARGS]{"a": {"b": [2]}}'
    assert [each.arguments for each in split_calls(two, DIALECTS["mistral"], over=True).calls] == [
        '{"a": 1}',
        '{"a": {"b": [2]}}',
    ]
    bare = '{"name": "add", "parameters": {}}; {"name": "add", "parameters": {}}'
    assert len(split_calls(bare, DIALECTS["llama"], over=True).calls) == 2


@pytest.mark.parametrize(("name", "output"), ALL, ids=str)
def test_a_text_for_a_tool_may_have_every_mark_in_it(name, output):
    dialect = DIALECTS[name]
    text = f"say {''.join(dialect.marks)} and </tool_call> and [TOOL_CALLS] twice"
    output = output.replace("2", text if "<parameter" in output else json.dumps(text))
    (call,) = split_calls(output, dialect, over=True).calls
    assert json.loads(call.arguments) == {"a": 1, "b": text}
    for end in range(len(output)):
        assert split_calls(output[:end], dialect, over=False).text in "Let me see."


@pytest.mark.parametrize("cut", ["<parameter=b>\n2", "<arg_value>2", '"b": 2'])
def test_a_call_that_was_cut_off_is_none(cut):
    name, output = next((name, output) for name, output in ALL if cut in output)
    found = split_calls(output[: output.index(cut) + len(cut)], DIALECTS[name], over=True)
    assert found.calls == () and found.text.endswith(cut)


TEXTS = ["", "Just a text.", "<tool_call>", "<tool_call>no JSON</tool_call>", "[TOOL_CALLS] [1, 2]", "{", "[" * 5000]
TEXTS += [f"<{BAR}tool▁calls▁begin{BAR}>", "<|tool_call_start|>[add(1)]<|tool_call_end|>", "<|tool_call|>{}", "[1]"]


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("output", TEXTS, ids=lambda output: output[:20])
def test_what_is_no_call_stays_text(name, output):
    found = split_calls(output, DIALECTS[name], over=True)
    assert found.calls == () and found.text == output


def test_a_dialect_is_found_by_what_its_template_says():
    assert find("[AVAILABLE_TOOLS]\0[TOOL_CALLS]").name == "mistral"
    assert find("<tool_call>\n<arg_key>").name == "glm"
    assert find("<tool_call>").name == find("").name == "hermes"
