"""ASGI middleware for security: headers that keep a model's output from making the visitor's browser contact other
servers, and a limit on the size of requests."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parley.config import MAX_REQUEST_BYTES
from parley.errors import error_data

# Gradio needs inline scripts and styles. frame-ancestors is not set, because other sites may embed the page.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'none'",
    )
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

STREAM, UNBUFFERED = b"text/event-stream", (b"x-accel-buffering", b"no")  # else nginx keeps words for a while


class SecurityMiddleware:
    """Checks every request. It is pure ASGI, because a BaseHTTPMiddleware would hide disconnects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection; answers 413 for a body that is too large."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                streams = any(name == b"content-type" and kind.startswith(STREAM) for name, kind in given)
                message = {**message, "headers": [*given, *HEADERS, *[UNBUFFERED] * streams]}
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (body := await read_body(scope, receive)) is None:
            sentence = f"A request may have at most {MAX_REQUEST_BYTES.read()} bytes."
            await refusal(413, sentence, error_data("too_large", sentence))(scope, receive, send_with_headers)
        elif sentence := _objection(body):
            await refusal(422, sentence, error_data("bad_request", sentence))(scope, receive, send_with_headers)
        else:
            await self._app(scope, replay_body(body, receive), send_with_headers)


def _objection(body: bytes) -> str:
    """Why a body is refused, as a sentence; empty where it may pass.

    Gradio downloads the URL of a file object, wherever it stands in a body and before any function of the app sees it.
    The body is parsed and not searched, because JSON can write the same letters as escapes.
    """
    no_numbers: list[str] = []
    try:
        waiting = [json.loads(body, parse_constant=no_numbers.append)] if body else []
    except RecursionError:
        return "This request is nested too deeply. Send a flat list of messages."
    except ValueError:
        return ""  # Gradio says what is wrong with it
    if no_numbers:
        return f"JSON has no number {no_numbers[0]}. Send a finite number, or leave it out."
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(meta := value.get("meta"), dict) and "_type" in meta:
                return "This app takes no files. Send text only."
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return ""


async def read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The body of a request. None if it is too large; the rest of it is then not read."""
    body, more, most = b"", scope["method"] in ("POST", "PUT", "PATCH"), MAX_REQUEST_BYTES.read()
    while more and len(body) <= most:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body if len(body) <= most else None


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` function that returns `body` first, and then the messages that follow (the disconnect)."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def refusal(status: int, sentence: str, error: Mapping[str, Any] | None = None) -> JSONResponse:
    """An answer that says why a request is refused: in FastAPI's form and, with `error`, in that of the OpenAI API."""
    return JSONResponse({"detail": sentence} | ({"error": error} if error else {}), status)


def is_openai(path: str) -> bool:
    """Whether this is a route of the OpenAI API, whose clients read errors in its form."""
    return path.startswith("/v1/") or path.rstrip("/") == "/tokenize"
