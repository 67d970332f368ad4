"""The tools of agents, by the Model Context Protocol (https://modelcontextprotocol.io).

The server is not Gradio's. That one would call the app through one client for all agents: they would share one
conversation and one place in the line. Here each call is a turn of whoever makes it, without a state.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from parley.api import endpoints
from parley.api.generate import PARAMETERS, Generate
from parley.api.openai.doors import caller, check_key, remember
from parley.api.turns.failures import explained
from parley.config import GRADIO_MCP_SERVER
from parley.errors import BadSetting, ChatError
from parley.serving.waiting_line import Visitor
from parley.settings import OPTIONS

PATH = "/gradio_api/mcp"  # where agents look for the tools of a Space
Steps = AsyncGenerator[dict[str, Any]]


@dataclass(frozen=True)
class Tool:
    """One tool: `run` takes the page, the arguments and who asks, and yields the result so far."""

    name: str
    description: str
    properties: Mapping[str, Mapping[str, Any]]  # the JSON schema of each argument
    required: Sequence[str]
    run: Callable[[Any, Mapping[str, Any], Visitor], Steps]
    text: Callable[[dict[str, Any]], str] = str  # of the result, for a model

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of all arguments."""
        made = {"type": "object", "properties": dict(self.properties), "required": list(self.required)}
        return made | {"additionalProperties": False}


SETTINGS = {name: o.schema | {"description": o.help} for name, o in OPTIONS.items()}


def _chat(page: endpoints.Page, given: Mapping[str, Any], visitor: Visitor) -> Steps:
    settings = {name: value for name, value in given.items() if name != "messages"}
    return Generate(page.turns).results(given.get("messages"), settings, None, None, visitor)


async def _models(page: Any, given: Mapping[str, Any], visitor: Visitor) -> Steps:
    yield {"models": await asyncio.to_thread(endpoints.models)}


async def _strategies(page: Any, given: Mapping[str, Any], visitor: Visitor) -> Steps:
    try:
        yield {"strategies": await asyncio.to_thread(endpoints.list_strategies, given.get("model", ""))}
    except gr.Error as error:
        raise ChatError(str(error.message)) from error


def _summary(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split())


TOOLS = (
    Tool(
        "chat",
        "Ask an open language model, and choose how it decodes. Nothing is kept between calls: `messages` has the "
        "whole conversation. A setting that is left out takes the value that the model recommends.",
        {"messages": PARAMETERS["messages"][1] | {"description": PARAMETERS["messages"][2]}} | SETTINGS,
        ("messages",),
        _chat,
        lambda result: result["text"],
    ),
    Tool("models", _summary(endpoints.models), {}, (), _models),
    Tool("strategies", _summary(endpoints.list_strategies), {"model": SETTINGS["model"]}, (), _strategies),
)


class ToolServer:
    """An ASGI application that answers agents. Their calls wait in the line as those of all others."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        from mcp.server.lowlevel import Server  # only where it is switched on

        self._tools = {tool.name: tool for tool in tools}
        self._server: Server = Server("Parley")
        self._server.list_tools()(self._list)
        self._server.call_tool(validate_input=False)(self._call)
        self._manager: Any = None
        self._started = asyncio.Event()
        self._running: asyncio.Task | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request. What the server keeps in its loop begins with the first one."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        await self._started.wait()
        await self._manager.handle_request(scope, receive, send)

    async def _run(self) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        self._manager = StreamableHTTPSessionManager(self._server, stateless=True)
        async with self._manager.run():
            self._started.set()
            await asyncio.Event().wait()  # until the app ends

    async def schemas(self, _: Request) -> JSONResponse:
        """The tools as a plain list, which Hugging Face reads."""
        rows = self._tools.values()
        return JSONResponse([{"name": t.name, "description": t.description, "inputSchema": t.schema} for t in rows])

    async def _list(self) -> list[Any]:
        from mcp.types import Tool as Described

        rows = self._tools.values()
        return [Described(name=t.name, description=t.description, inputSchema=t.schema) for t in rows]

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        from mcp.types import CallToolResult, TextContent

        request = self._server.request_context.request
        assert isinstance(request, Request)
        try:
            result, text = await self._result(name, arguments, request)
        except Exception as error:
            told = explained(error)
            why = TextContent(type="text", text=str(told))
            return CallToolResult(content=[why], structuredContent={"error": told.as_data()}, isError=True)
        return CallToolResult(content=[TextContent(type="text", text=text)], structuredContent=result)

    async def _result(self, name: str, arguments: dict[str, Any], request: Request) -> tuple[dict[str, Any], str]:
        check_key(request)
        remember(request)
        tool = self._tools.get(name)
        if tool is None:
            raise BadSetting(f"There is no tool {name[:40]!r}. Use one of {', '.join(self._tools)}.", name="name")
        tell, last = self._teller(), dict[str, Any]()
        page = request.app.get_blocks()
        async with aclosing(tool.run(page, arguments, caller(request))) as steps:
            async for last in steps:
                await tell(last)
                if await request.is_disconnected():
                    break
        return last, tool.text(last)

    def _teller(self) -> Callable[[dict[str, Any]], Any]:
        """Tells an agent that wants to know how far a call has come: its tokens, or what it waits for."""
        context = self._server.request_context
        token = context.meta.progressToken if context.meta else None
        told: tuple[str, float] | None = None

        async def tell(step: dict[str, Any]) -> None:
            nonlocal told
            now = str(step.get("status", "")), float(step.get("usage", {}).get("completion_tokens", 0))
            if token is not None and now != told:
                told = now
                await context.session.send_progress_notification(
                    token, now[1], message=now[0] or None, related_request_id=str(context.request_id)
                )

        return tell


def routes(more: Sequence[Tool]) -> list[BaseRoute]:
    """The routes of the tools, where the owner has switched them on. `more` are tools of other modules."""
    if not GRADIO_MCP_SERVER.read():
        return []
    server = ToolServer([*TOOLS, *more])
    served = [Route(path, server, methods=["GET", "POST", "DELETE"]) for path in (PATH, f"{PATH}/")]
    return [Route(f"{PATH}/schema", server.schemas), *served]
