"""The ASGI guard: headers that keep a model's output from making the reader's browser call anyone, and a limit on what
strangers may send."""

import json

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio needs inline scripts and styles. frame-ancestors is left open: the page is made to be embedded.
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
MAX_REQUEST_BYTES = 2_000_000  # of a request: a long conversation, several times over
# Gradio's roads for files, of which there are none here.
BLOCKED_PATHS = ("/gradio_api/upload", "/gradio_api/file", "/gradio_api/stream", "/gradio_api/component_server")


class SecurityMiddleware:
    """Stands before every request. Pure ASGI: a BaseHTTPMiddleware would hide disconnects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection; answers 404 for what is not needed here and 413 for what is too large."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(BLOCKED_PATHS):
            await _refusal(404, "There is nothing here.")(scope, receive, send_guarded)
        elif (body := await _body(scope, receive)) is None:
            await _refusal(413, f"A request may have at most {MAX_REQUEST_BYTES} bytes.")(scope, receive, send_guarded)
        elif refused := _refused(body):
            await _refusal(422, refused)(scope, receive, send_guarded)
        else:
            await self._app(scope, _again(body, receive), send_guarded)


def _refused(body: bytes) -> str:
    """Why a body is refused, as a sentence; empty where it may pass.

    Gradio downloads the URL of a file object, wherever it stands in a body and before any function of the app sees it.
    The body is parsed and not searched, because JSON can write the same letters as escapes.
    """
    try:
        waiting = [json.loads(body)] if body else []
    except RecursionError:
        return "This request is nested too deeply. Send a flat list of messages."
    except ValueError:
        return ""  # Gradio says what is wrong with it
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(meta := value.get("meta"), dict) and "_type" in meta:
                return "This app takes no files. Send text only."
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return ""


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body of a request that has one; None for one that is too large, of which the rest is not read."""
    body, more = b"", scope["method"] in ("POST", "PUT", "PATCH")
    while more and len(body) <= MAX_REQUEST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body if len(body) <= MAX_REQUEST_BYTES else None


def _again(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives `body` first and then what else comes: the disconnect."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _refusal(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)
