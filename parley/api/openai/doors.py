"""What every route of the OpenAI API has in common: the key, the body, errors as data, and streams that stay alive."""

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import gradio as gr
from fastapi import Request
from gradio.context import LocalContext
from starlette.responses import JSONResponse, Response, StreamingResponse

from parley.api.turns.failures import explained
from parley.api.visitors import network
from parley.config import API_KEY
from parley.errors import BadKey, ChatError
from parley.serving.waiting_line import Visitor

KEEPALIVE_SECONDS = 4.0  # the longest silence of a stream, which a comment line ends
PATIENCE_SECONDS = 2.0  # for which an error may still become the status of a stream's answer
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # a proxy shall hold back no piece

Handler = Callable[[Request, Any], Awaitable[Response]]
Events = AsyncGenerator[dict[str, Any] | None]  # None: nothing new


def door(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The function of a route: it checks the key, reads the body, and answers errors in the form of the OpenAI API."""

    async def served(request: Request) -> Response:
        try:
            check_key(request)
            remember(request)
            return await handler(request, await _body(request))
        except Exception as error:
            return refused(explained(error))

    return served


def refused(error: ChatError) -> JSONResponse:
    """The answer that tells this error."""
    seconds = getattr(error, "retry_seconds", None)
    headers = {"retry-after": str(seconds)} if seconds else {}
    return JSONResponse({"error": error.as_data()}, error.status, headers)


def check_key(request: Request) -> None:
    """Raises `BadKey` for a request without the owner's key, where there is one.

    On ZeroGPU the header Authorization has the caller's token of Hugging Face, whose quota the turn spends.
    """
    key = API_KEY.read()
    given = [request.headers.get("x-api-key", "")]
    if not os.environ.get("SPACES_ZERO_GPU"):
        given.append(request.headers.get("authorization", "").removeprefix("Bearer ").strip())
    if key and not any(hmac.compare_digest(each.encode(), key.encode()) for each in given):
        name = "X-API-Key" if os.environ.get("SPACES_ZERO_GPU") else "Authorization: Bearer, or X-API-Key"
        raise BadKey(f"This app needs an API key. Send the one that its owner gave you in the header {name}.")


def remember(request: Request) -> None:
    """Puts the request where `spaces` looks for the visitor whose quota a turn spends, as Gradio does."""
    LocalContext.blocks.set(request.app.get_blocks())
    LocalContext.request.set(gr.Request(request=request))


def caller(request: Request) -> Visitor:
    """Who asks, as the waiting line knows them: by the key that they send, and their address."""
    address = network(request.client.host) if request.client else ""
    key = request.headers.get("x-api-key") or request.headers.get("authorization", "")
    return Visitor(hashlib.sha256(f"{address} {key}".encode()).hexdigest()[:32], address)


async def _body(request: Request) -> Any:
    if request.method != "POST":
        return None
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ChatError("The body is no valid JSON in UTF-8. Send an object.") from None


async def whole(request: Request, steps: AsyncGenerator[Any]) -> Any:
    """The last of these steps. A caller who has gone ends them."""
    last = None
    async with aclosing(steps) as made:
        async for step in made:
            last = step
            if await request.is_disconnected():
                break
    return last


async def streamed(events: Events) -> Response:
    """A stream of these events. What goes wrong in the first moment is an error with its status, later an event."""
    first, began, read = list[dict[str, Any]](), time.monotonic(), aiter(events)
    try:
        while not first and time.monotonic() < began + PATIENCE_SECONDS:
            event = await anext(read)
            first += [event] if event is not None else []
    except StopAsyncIteration:
        pass
    except BaseException:
        await events.aclose()
        raise
    return StreamingResponse(_lines(first, events), media_type="text/event-stream", headers=HEADERS)


async def _lines(first: list[dict[str, Any]], events: Events) -> AsyncGenerator[str]:
    sent_at = time.monotonic()
    try:
        for each in first:
            yield _line(each)
        async with aclosing(events) as rest:
            async for event in rest:
                if event is not None:
                    yield _line(event)
                elif time.monotonic() > sent_at + KEEPALIVE_SECONDS:
                    yield ": still at work\n\n"
                else:
                    continue
                sent_at = time.monotonic()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        yield _line({"error": explained(error).as_data()})
    yield "data: [DONE]\n\n"


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
