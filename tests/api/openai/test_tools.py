"""Tools: an agent's loop with two of them, calls as a stream and whole, and models that know none."""

import json
import os

import openai
import pytest

from parley.models import registry
from parley.models.tools.dialects import DIALECTS

QUESTION = {"role": "user", "content": "What is (2 + 3) * 4?"}
NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{name} two numbers", "parameters": NUMBERS}}
    for name in ("add", "multiply")
]
DO = {"add": lambda a, b: a + b, "multiply": lambda a, b: a * b}


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def mind(messages):
    """What a model would write: it adds, multiplies what came of that, and tells the result."""
    results = [each.content for each in messages if each.role == "tool"]
    if not results:
        return "I add first.\n" + call("add", a=2, b=3)
    return call("multiply", a=json.loads(results[0]), b=4) if len(results) == 1 else f"It is {results[1]}."


def streamed(stream):
    """The message that a client makes of a stream."""
    message, reason = {"role": "assistant", "content": ""}, None
    for choice in (choice for chunk in stream for choice in chunk.choices):
        message["content"] += choice.delta.content or ""
        for each in choice.delta.tool_calls or ():
            calls = message.setdefault("tool_calls", [])
            if each.index == len(calls):
                calls.append({"id": each.id, "type": each.type, "function": {"name": "", "arguments": ""}})
            calls[each.index]["function"]["name"] += each.function.name or ""
            calls[each.index]["function"]["arguments"] += each.function.arguments or ""
        reason = choice.finish_reason or reason
    return message, reason


def answered(client, model, messages, stream):
    asked = {"model": model, "messages": messages, "tools": TOOLS, "temperature": 0, "stream": stream}
    made = client.chat.completions.create(**asked)
    if stream:
        return streamed(made)
    return made.choices[0].message.model_dump(exclude_none=True), made.choices[0].finish_reason


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_agent_comes_to_its_answer_with_two_tools(openai_client, handy, scripted, stream):
    prompts, messages, reasons = scripted(mind), [QUESTION], []
    while not reasons or reasons[-1] == "tool_calls":
        message, reason = answered(openai_client, handy, messages, stream)
        messages.append(message)
        reasons.append(reason)
        for each in message.get("tool_calls", ()):
            result = DO[each["function"]["name"]](**json.loads(each["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": each["id"], "content": json.dumps(result)})
    assert reasons == ["tool_calls", "tool_calls", "stop"]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert messages[1]["content"] == "I add first." and messages[-1]["content"] == "It is 20."
    assert messages[1]["tool_calls"][0]["id"] != messages[3]["tool_calls"][0]["id"]
    assert prompts[-1][1].calls[0].name == "add" and prompts[-1][2].call_id == messages[1]["tool_calls"][0]["id"]


def test_several_calls_of_one_answer_and_only_the_first_where_that_is_asked(openai_client, handy, scripted):
    scripted(lambda _: call("add", a=1, b=2) + "\n" + call("multiply", a=3, b=4))
    asked = {"model": handy, "messages": [QUESTION], "tools": TOOLS}
    for more, names in ({}, ["add", "multiply"]), ({"parallel_tool_calls": False}, ["add"]):
        message = openai_client.chat.completions.create(**asked, **more).choices[0].message
        assert [each.function.name for each in message.tool_calls] == names and message.content is None


def test_what_is_no_call_is_text(openai_client, handy, scripted):
    scripted(lambda _: "<tool_call>add 1 and 2</tool_call>")
    (choice,) = openai_client.chat.completions.create(model=handy, messages=[QUESTION], tools=TOOLS).choices
    assert choice.message.content == "<tool_call>add 1 and 2</tool_call>"
    assert choice.finish_reason == "stop" and not choice.message.tool_calls


def test_without_tools_a_call_is_text(openai_client, handy, scripted):
    scripted(lambda _: call("add", a=1, b=2))
    asked = {"model": handy, "messages": [QUESTION]}
    for more in {}, {"tools": TOOLS, "tool_choice": "none"}:
        message = openai_client.chat.completions.create(**asked, **more).choices[0].message
        assert "<tool_call>" in message.content and not message.tool_calls


def test_the_template_gets_the_tools(openai_client, handy):
    asked = {"model": handy, "messages": [QUESTION], "max_tokens": 2}
    plain, more = (openai_client.chat.completions.create(**asked, **given).usage for given in ({}, {"tools": TOOLS}))
    assert more.prompt_tokens > plain.prompt_tokens + 20


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "multiply"}}], ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_that_is_required_is_made_by_any_model(openai_client, handy, choice, stream):
    """By the model itself, which calls nothing of its own accord."""
    whole = {"type": "integer", "minimum": 0, "maximum": 99}
    numbers = {**NUMBERS, "properties": {"a": whole, "b": whole}, "additionalProperties": False}
    tools = [{"type": "function", "function": {**each["function"], "parameters": numbers}} for each in TOOLS]
    asked = {"model": handy, "messages": [QUESTION], "tools": tools, "tool_choice": choice, "max_tokens": 90}
    made = openai_client.chat.completions.create(**asked, stream=stream)
    if stream:
        message, reason = streamed(made)
    else:
        message, reason = made.choices[0].message.model_dump(), made.choices[0].finish_reason
    (call,) = message["tool_calls"]
    assert reason == "tool_calls" and set(json.loads(call["function"]["arguments"])) == {"a", "b"}
    assert call["function"]["name"] in (["multiply"] if isinstance(choice, dict) else ["add", "multiply"])


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_is_required_of_every_dialect(openai_client, dialect_folders, monkeypatch, dialect, stream):
    folder = dialect_folders[dialect]
    monkeypatch.setenv("MODEL_IDS", f"{os.environ['MODEL_IDS']},{folder}")
    assert registry.traits(registry.find(folder.name)).tools == dialect
    whole = {"type": "integer", "minimum": 0, "maximum": 99}
    numbers = {**NUMBERS, "properties": {"a": whole, "b": whole}, "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "add", "parameters": numbers}}]
    asked = {"model": folder.name, "messages": [QUESTION], "tools": tools, "tool_choice": "required"}
    made = openai_client.chat.completions.create(**asked, max_tokens=300, stream=stream)
    if stream:
        message, reason = streamed(made)
    else:
        message, reason = made.choices[0].message.model_dump(), made.choices[0].finish_reason
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "add" and reason == "tool_calls" and not message["content"]
    assert set(json.loads(call["function"]["arguments"])) == {"a", "b"}


@pytest.mark.parametrize(
    ("bad", "code", "sentence"),
    [
        ({"model": "budgie", "tools": TOOLS}, "not_supported", "knows no tools. Leave out tools, or choose another"),
        ({"tools": [{"name": "add"}]}, "bad_setting", "A tool must be an object such as"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "divide"}}},
            "bad_setting",
            "asks for a tool that is not there",
        ),
        ({"messages": [QUESTION, {"role": "tool", "content": "5"}]}, "bad_messages", "no tool was called before it"),
        (
            {"messages": [QUESTION, {"role": "assistant", "tool_calls": [7]}]},
            "bad_messages",
            "A call of a tool must be",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(openai_client, handy, bad, code, sentence):
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(**{"model": handy, "messages": [QUESTION]} | bad)
    assert refused.value.code == code and sentence in refused.value.body["message"]
