"""The routes of the app, each with the reason why it is served or closed. A closed one answers 404.

A path is written as in FastAPI. `{name}` stands for one part of a path, `{name:path}` for several. A slash at its end
makes no difference.
"""

import re
from urllib.parse import parse_qsl, quote, urlencode

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from parley.api.security import is_openai, refusal
from parley.errors import error_data

_PAGE, _PROGRAMS, _BOTH = "The page needs it.", "Programs need it.", "The page and programs need it."
_OPENAI = "Programs for the OpenAI API need it."
_API = "/gradio_api"
OF_AGENTS = {  # where the owner has switched them on: see mcp_tools.py
    **{f"{method} {_API}/mcp": "Agents call the tools by it." for method in ("GET", "POST", "DELETE")},
    f"GET {_API}/mcp/schema": "Hugging Face reads the tools from it.",
    f"HEAD {_API}/mcp/schema": "Hugging Face reads the tools from it.",
}
SERVED = {
    "GET /": _PAGE,
    "HEAD /": "Whoever looks whether the Space runs asks for it.",
    "GET /config": _BOTH,
    "GET /theme.css": _PAGE,
    "GET /static/{path:path}": _PAGE,
    "GET /assets/{path:path}": _PAGE,
    "GET /favicon.ico": _PAGE,
    "GET /manifest.json": "The page names it, so that it can be put on a phone's first screen.",
    "GET /pwa_icon": "The manifest names it.",
    "GET /healthz": "A supervisor asks whether the app is well.",
    "HEAD /healthz": "A supervisor asks whether the app is well.",
    "GET /metrics": "Prometheus asks for it.",
    "HEAD /metrics": "Prometheus asks for it.",
    "GET /robots.txt": "Search engines ask for it.",
    "GET /translations/{language}.json": _PAGE,
    "HEAD /translations/{language}.json": _PAGE,
    "GET /compare.json": _PAGE,
    "HEAD /compare.json": _PAGE,
    "GET /saved_view/{view}.txt": _PAGE,
    "HEAD /saved_view/{view}.txt": _PAGE,
    "GET /embed.js": "A page that embeds this one loads it.",
    "HEAD /embed.js": "A page that embeds this one loads it.",
    "GET /shared/{view}": "A link with a result opens it.",
    "HEAD /shared/{view}": "A link with a result opens it.",
    f"GET {_API}/info": _BOTH,
    f"GET {_API}/openapi.json": _PROGRAMS,
    f"GET {_API}/app_id": "The page asks for it after a lost connection.",
    f"GET {_API}/heartbeat/{{session_hash}}": "It tells the server when a page is gone.",
    f"GET {_API}/startup-events": "Gradio asks for it when the app starts.",
    f"GET {_API}/queue/data": "The stream of a page's or a program's session.",
    f"POST {_API}/queue/join": _BOTH,
    f"GET {_API}/queue/status": "gradio_client asks for it.",
    f"POST {_API}/cancel": _BOTH,
    f"POST {_API}/reset": _PROGRAMS,
    f"GET {_API}/login_check": "gradio_client asks whether it has to log in.",
    f"POST {_API}/call/{{api_name}}": _PROGRAMS,
    f"GET {_API}/call/{{api_name}}/{{event_id}}": _PROGRAMS,
    f"POST {_API}/call/v2/{{api_name}}": _PROGRAMS,
    f"GET {_API}/call/v2/{{api_name}}/{{event_id}}": _PROGRAMS,
    "POST /v1/chat/completions": _OPENAI,
    "POST /v1/completions": _OPENAI,
    "GET /v1/models": _OPENAI,
    "GET /v1/models/{model:path}": _OPENAI,
    "POST /tokenize": _OPENAI,
    **OF_AGENTS,
    f"POST {_API}/run/{{api_name}}": "Calls without a queue: /models, /strategies.",
    f"POST {_API}/api/{{api_name}}": "The older name of /run.",
}
_NO_LOGIN, _NO_FILES = "Nobody logs in here.", "The app takes and gives no files."
_NO_HISTORY, _NO_EDITOR = "Nothing is stored on the server.", "It belongs to Gradio's editor, which is off."
CLOSED = {
    "GET /openapi.json": "It describes the routes of Gradio, not those of the app.",
    "HEAD /openapi.json": "It describes the routes of Gradio, not those of the app.",
    "POST /login": _NO_LOGIN,
    "GET /logout": _NO_LOGIN,
    f"GET {_API}/user": _NO_LOGIN,
    f"GET {_API}/token": _NO_LOGIN,
    "GET /svelte/{path:path}": "Only custom components with Svelte sources need it.",
    f"GET {_API}/custom_component/{{id}}/{{environment}}/{{type}}/{{file_name}}": "No component has files of its own.",
    "GET /pwa_icon/{size}": "The icon is a drawing of any size.",
    "GET /monitoring": "Monitoring by Gradio is off.",
    "GET /monitoring/summary": "Monitoring by Gradio is off.",
    "GET /monitoring/{key}": "Monitoring by Gradio is off.",
    f"GET {_API}/deep_link": "It would store the conversation on the server.",
    f"GET {_API}/dev/reload": "It belongs to Gradio's reload mode, and its stream never ends.",
    f"GET {_API}/runs": _NO_HISTORY,
    f"GET {_API}/theme.css": "The page takes it from /theme.css.",
    f"GET {_API}/proxy={{url_path:path}}": "It would fetch pages of other servers.",
    f"HEAD {_API}/proxy={{url_path:path}}": "It would fetch pages of other servers.",
    f"GET {_API}/file={{path_or_url:path}}": _NO_FILES,
    f"HEAD {_API}/file={{path_or_url:path}}": _NO_FILES,
    f"GET {_API}/file/{{path:path}}": _NO_FILES,
    f"POST {_API}/upload": _NO_FILES,
    f"GET {_API}/upload_progress": _NO_FILES,
    f"POST {_API}/process_recording": _NO_FILES,
    f"POST {_API}/stream/{{event_id}}": _NO_FILES,
    f"POST {_API}/stream/{{event_id}}/close": _NO_FILES,
    f"GET {_API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist.m3u8": _NO_FILES,
    f"GET {_API}/stream/{{session_hash}}/{{run}}/{{component_id}}/{{segment_id}}.{{ext}}": _NO_FILES,
    f"GET {_API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist-file": _NO_FILES,
    f"POST {_API}/component_server": "No component has functions of its own on the server.",
    f"POST {_API}/vibe-edit": _NO_EDITOR,
    f"POST {_API}/undo-vibe-edit": _NO_EDITOR,
    f"GET {_API}/vibe-code": _NO_EDITOR,
    f"POST {_API}/vibe-code": _NO_EDITOR,
    f"POST {_API}/vibe-starter-queries": _NO_EDITOR,
}
MAX_NAME = 255  # bytes of one part of a path: a file system refuses longer names with an error
NOTHING = "There is nothing here."
_UNUSED_QUERIES = ("page", "deep_link")  # of Gradio: other pages, and conversations stored on the server


def _form(route: str) -> str:
    parts = re.split(r"(\{\w+(?::path)?\})", route)
    return "".join(
        (".+" if part.endswith(":path}") else "[^/]+") if part.startswith("{") else re.escape(part) for part in parts
    )


_SERVED = re.compile(f"(?:{'|'.join(map(_form, SERVED))})/?")


class UnderPath:
    """Serves the app under a path, for a proxy that passes the path on as for one that takes it away. Pure ASGI."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection."""
        path = scope.get("path", "")
        if scope["type"] == "http" and self._path and path == self._path:
            await RedirectResponse(f"{self._path}/")(scope, receive, send)  # the page names its parts from there
            return
        if scope["type"] == "http" and self._path and path.startswith(f"{self._path}/"):
            inner = path.removeprefix(self._path)
            scope = {**scope, "path": inner, "raw_path": quote(inner).encode()}
        await self._app(scope, receive, send)


class ServedRoutes:
    """Answers 404 for all routes but those of `SERVED`. Pure ASGI, so that it changes no stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not is_served(scope["method"], scope["path"]):
            error = error_data("not_found", NOTHING) if is_openai(scope["path"]) else None
            await refusal(404, NOTHING, error)(scope, receive, send)
        else:
            query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
            if any(name in _UNUSED_QUERIES for name, _ in query):
                kept = [(name, value) for name, value in query if name not in _UNUSED_QUERIES]
                scope = {**scope, "query_string": urlencode(kept).encode()}
            await self._app(scope, receive, send)


def is_served(method: str, path: str) -> bool:
    """Whether this route is served."""
    return bool(_SERVED.fullmatch(f"{method} {path}")) and all(
        len(part.encode("utf-8", "replace")) <= MAX_NAME for part in path.split("/")
    )
