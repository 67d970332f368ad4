"""The file that "Save view" writes: a page of its own with the script, the style sheet and the data of one view.

It opens offline and asks for nothing. The browser takes the empty page from here, and puts the data into it (see
saved_view.js), so that nothing is stored on the server.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse
from starlette.routing import Route

HERE = Path(__file__).parent
TEXTS = {  # of saved_view.js
    "save": "Save view",
    "save_help": "Saves a page that shows this offline",
    "csv": "CSV",
    "csv_help": "Saves the figures as a table",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Parley</title>
<style>{styles}</style>
</head>
<body>
<h1></h1>
<p id="about"></p>
<main class="view"></main>
<script type="application/json" id="saved">{{}}</script>
<script>{scripts}</script>
<script>{{
  const {{ title, about, data, texts, labels }} = JSON.parse(document.getElementById("saved").textContent);
  document.title = `${{title}} · Parley`;
  document.querySelector("h1").textContent = title;
  document.getElementById("about").textContent = about;
  document.querySelector("main").append({draw});
}}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class View:
    """A view that can be saved: its files in this folder, and the expression that draws it."""

    styles: tuple[str, ...]
    scripts: tuple[str, ...]
    draw: str


VIEWS = {
    "compare": View(("compare_view.css",), ("compare_view.js",), "compareView.draw(data, { texts, labels })"),
    "choices": View(
        ("choices.css",),
        ("drawing.js", "beam_tree.js", "draft_ribbon.js", "token_view.js"),
        "tokenView.draw(data, { texts })",
    ),
}


def page(view: View) -> str:
    """The page of this view, without data."""
    styles = "".join((HERE / name).read_text("utf-8") for name in (*view.styles, "saved_view.css"))
    scripts = "".join((HERE / name).read_text("utf-8") for name in view.scripts)
    return PAGE.format(styles=styles, scripts=scripts, draw=view.draw)


def _route(name: str, view: View) -> Route:
    content = page(view)

    async def answer(_: Any) -> HTMLResponse:
        # No HTML to a browser: it would be a page of this Space, which nobody should see without data.
        return HTMLResponse(content, media_type="text/plain")

    return Route(f"/saved_view/{name}.txt", answer)


ROUTES = [_route(name, view) for name, view in VIEWS.items()]
