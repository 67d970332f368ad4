"""Our part of the page's HTML: its head, with the style sheet and the scripts as files, and a skeleton of the page.

Gradio's option `head` would send all of it with every page, inside of the configuration, and insert it only after
the page was read.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What the endpoints for programs take, which is a fifth of the HTML. The page calls none of them by name.
_API_INFO = re.compile(rb"window\.gradio_api_info = .*?;\s*</script>", re.DOTALL)
_NO_ENDPOINTS = b'{"named_endpoints":{},"unnamed_endpoints":{}}'
SKELETON = '<div id="skeleton" aria-hidden="true"><i></i><i></i><i></i></div>'


class PageHead:
    """ASGI middleware that completes the HTML of the page and serves the two files."""

    def __init__(self, app: ASGIApp, html: str, styles: Sequence[Path], scripts: Sequence[Path]) -> None:
        """`html` begins the head. `scripts` run in their order, after the page was read and before those of Gradio."""
        self._app = app
        self._files = {
            "page.css": ("text/css", "".join(each.read_text("utf-8") for each in styles).encode()),
            "page.js": ("text/javascript", "".join(each.read_text("utf-8") for each in scripts).encode()),
        }
        css, js = (f"{name}?v={hashlib.sha256(body).hexdigest()[:12]}" for name, (_, body) in self._files.items())
        self._head = f'{html}<link rel="stylesheet" href="{css}"><script defer src="{js}"></script>'.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection."""
        folder, _, name = scope.get("path", "").rpartition("/")
        if scope["type"] != "http" or scope["method"] != "GET" or folder:
            await self._app(scope, receive, send)
        elif name in self._files:
            kind, body = self._files[name]
            response = Response(body, media_type=kind)
            response.headers["cache-control"] = "public, max-age=31536000, immutable"
            await response(scope, receive, send)
        elif name:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _Completed(send, self._head))


class _Completed:
    """A `send` function that passes an HTML answer on once it is whole, with our part of it."""

    def __init__(self, send: Send, head: bytes) -> None:
        self._send, self._head = send, head
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            if message["status"] == 200 and headers.get(b"content-type", b"").startswith(b"text/html"):
                self._start = message
                return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        # Before Gradio's own scripts, the first of which has its configuration.
        body = self._body.replace(b"<script>window.gradio_config", self._head + b"<script>window.gradio_config", 1)
        body = _API_INFO.sub(b"window.gradio_api_info = " + _NO_ENDPOINTS + b";</script>", body, count=1)
        body = re.sub(rb"<body[^>]*>", lambda found: found[0] + SKELETON.encode(), body, count=1)
        kept = [each for each in self._start["headers"] if each[0] != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "headers": [*kept, length]})
        await self._send({**message, "body": body})
