"""The tools for agents, called by a client of the package `mcp`."""

import asyncio
import contextlib
import json

import jsonschema
import pytest

pytest.importorskip("mcp")
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from parley.api import mcp_tools
from parley.settings import OPTIONS
from tests.conftest import Space

pytestmark = pytest.mark.slow
QUESTION = {"messages": "Tell me a story about an owl.", "model": "budgie", "seed": 7, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def url():
    space = Space(GRADIO_MCP_SERVER="True", MODEL_IDS="budgie,parrot")
    yield f"{space.url}{mcp_tools.PATH}/"
    space.close()


@contextlib.asynccontextmanager
async def session(url):
    async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as opened:
        await opened.initialize()
        yield opened


def with_session(url, work):
    async def run():
        async with session(url) as opened:
            return await work(opened)

    return asyncio.run(run())


def call(url, name, arguments, told=None):
    return with_session(url, lambda opened: opened.call_tool(name, arguments, progress_callback=told))


def test_each_tool_has_a_valid_schema_and_says_what_each_argument_is(url):
    tools = {tool.name: tool for tool in with_session(url, lambda opened: opened.list_tools()).tools}
    assert set(tools) == {"chat", "compare", "models", "strategies"}
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.inputSchema)
        assert tool.description.endswith(".")
        assert all(each["description"].endswith(".") for each in tool.inputSchema["properties"].values())
    chat = tools["chat"].inputSchema
    assert set(chat["properties"]) == {"messages", *OPTIONS} and chat["required"] == ["messages"]
    assert chat["properties"]["max_new_tokens"]["type"] == "integer"
    jsonschema.validate(QUESTION, chat)


def test_a_chat_tells_how_far_it_is_and_is_the_same_as_for_any_program(url):
    seen = []

    async def told(progress, total, message):
        seen.append((progress, message))

    made = call(url, "chat", QUESTION, told)
    assert not made.isError and made.structuredContent["usage"]["completion_tokens"] == 24
    assert made.content[0].text == made.structuredContent["text"] != ""
    assert made.structuredContent["settings"]["seed"] == 7
    assert seen
    assert call(url, "chat", QUESTION).structuredContent["text"] == made.structuredContent["text"]


def test_nothing_is_kept_between_the_calls_of_agents(url):
    nonce = "xylophone-4711"
    call(url, "chat", {"messages": nonce, "model": "parrot"})
    again = call(url, "chat", {"messages": "What did I say?", "model": "parrot"})
    assert nonce not in again.content[0].text


def test_lists_and_a_comparison(url):
    models = call(url, "models", {}).structuredContent["models"]
    assert [each["name"] for each in models] == ["budgie", "parrot"]
    strategies = call(url, "strategies", {"model": "budgie"}).structuredContent["strategies"]
    assert "diverse_beams" in [each["name"] for each in strategies]
    columns = [{"strategy": "greedy", "max_new_tokens": 8}, {"strategy": "beams", "max_new_tokens": 8}]
    compared = call(url, "compare", {"message": "Hello!", "columns": columns})
    assert [each["error"] for each in compared.structuredContent["columns"]] == ["", ""]
    assert compared.content[0].text.startswith("Greedy: ")


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("chat", {"messages": "Hi", "temprature": 1}, "temperature"),
        ("chat", {"messages": "Hi", "temperature": "hot"}, "Temperature must be"),
        ("chat", {"messages": "Hi", "model": "bugdie"}, "budgie"),
        ("chat", {}, "messages"),
        ("compare", {"message": "Hi", "columns": [{}]}, "columns"),
        ("compare", {"message": "Hi", "columns": [{"seed": -1}, {}]}, "Column 1: Seed"),
        ("strategies", {"model": 7}, "model"),
        ("chatt", {"messages": "Hi"}, "chat"),
    ],
)
def test_a_wrong_call_gets_a_sentence(url, name, arguments, sentence):
    told = call(url, name, arguments)
    assert told.isError and sentence in told.content[0].text
    assert told.structuredContent["error"]["code"]
    assert "Traceback" not in json.dumps(told.model_dump())
