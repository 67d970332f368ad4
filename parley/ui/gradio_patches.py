"""Corrections of Gradio's own scripts, made while they are served.

Gradio lets no app change how a message is shown. Each row is one place in a script of the pinned version. Where a row
does not fit, as with another version of Gradio, that script is served as it is, and the log says so.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

ASSETS = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patch:
    """One place of a script. `old` must be found exactly once among the scripts whose names fit `files`."""

    files: str  # a glob pattern, because the names of scripts have a hash
    old: str
    new: str


PATCHES = (
    # Markdown takes the text that message_text.js has prepared. Without it, characters vanish:
    # https://github.com/gradio-app/gradio/issues/7198, https://github.com/gradio-app/gradio/issues/10450
    Patch(
        "markdown-code-*.js",
        "let n=[],r=e;m().forEach(",
        "let n=[],r=window.shownText?window.shownText(e):e;m().forEach(",
    ),
    # A text that is not Markdown is text, and not HTML.
    Patch(
        "markdown-code-*.js",
        "blocks:[{key:e,render:async()=>j(e,e)}]",
        "blocks:[{key:e,render:async()=>{let t=document.createDocumentFragment();t.append(e);return t}}]",
    ),
    # What a visitor typed is shown as they typed it.
    Patch(
        "Index-*.js",
        "get message(){return t.message.content},get latex_delimiters(){return t.latex_delimiters},"
        "get sanitize_html(){return t.sanitize_html},get render_markdown(){return t.render_markdown}",
        "get message(){return t.message.content},get latex_delimiters(){return t.latex_delimiters},"
        'get sanitize_html(){return t.sanitize_html},get render_markdown(){return t.message.role!=="user"}',
    ),
)


def patched(patches: Sequence[Patch] = PATCHES, folder: Path = ASSETS) -> dict[str, bytes]:
    """The scripts with their corrections, by file name."""
    by_file: defaultdict[Path, list[Patch]] = defaultdict(list)
    texts: dict[Path, str] = {}
    for patch in patches:
        texts |= {file: file.read_text("utf-8") for file in folder.glob(patch.files) if file not in texts}
        found = [file for file in texts if file.match(patch.files) and patch.old in texts[file]]
        if len(found) == 1 and texts[found[0]].count(patch.old) == 1:
            by_file[found[0]].append(patch)
        else:
            _log.warning("This version of Gradio has no single place for a correction of %s.", patch.files)
    for file, fitting in by_file.items():
        for patch in fitting:
            texts[file] = texts[file].replace(patch.old, patch.new)
    return {file.name: texts[file].encode() for file in by_file}


class PatchedScripts:
    """ASGI middleware that serves the corrected scripts in place of Gradio's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._scripts: Mapping[str, bytes] = patched()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection."""
        folder, _, name = scope.get("path", "").rpartition("/")
        if scope["type"] == "http" and folder.endswith("/assets") and name in self._scripts:
            response = Response(self._scripts[name], media_type="text/javascript")
            response.headers["cache-control"] = "public, max-age=3600"
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)
