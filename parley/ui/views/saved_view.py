"""A page of its own with the script, the style sheet and the data of one view: the file that "Save view" writes, and
what a link with a result opens.

The page asks for nothing, and its policy lets it load nothing. Nothing is stored on the server. For a file, the
browser takes the page without data from here, and puts them into it (see saved_view.js). In a link, they stand after
the `#`, which no browser sends. The texts around them are those of the server, so that a link says nothing in our
name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse
from starlette.routing import Route

from parley.settings import OPTIONS
from parley.ui.views import choices, compare

HERE = Path(__file__).parent
TEXTS = {  # of saved_view.js
    "saves": "Save or share",
    "save": "Save view",
    "save_help": "Saves a page that shows this offline",
    "with_result": "Copy link with result",
    "with_result_help": "Copies an address that holds all that is shown, so that nothing is computed again",
    "copied": "Copied",
    "too_long": "A link of {count} characters is too long; {most} are allowed. Save the view instead.",
    "csv": "CSV",
    "csv_help": "Saves the figures as a table",
    "svg": "SVG",
    "svg_help": "Saves what is shown as a drawing",
}
SHARED = {  # of the page that a link opens
    "shared": "This came with the link. Nothing was computed here.",
    "parley": "Open Parley",
    "damaged": "This link is damaged or was cut off. Ask for it again, or for the view as a file.",
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
<script type="application/json" id="saved">{saved}</script>
<script>{scripts}</script>
<script>const draw = {draw};
{shows}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class View:
    """A view that can be saved: its files in this folder, the function that draws it, and its texts."""

    styles: tuple[str, ...]
    scripts: tuple[str, ...]
    draw: str
    title: str
    texts: Mapping[str, str]


VIEWS = {
    "compare": View(
        styles=("compare_view.css",),
        scripts=("compare_view.js",),
        draw="compareView.draw",
        title=compare.TEXTS["run"],
        texts=compare.OF_AN_ANSWER | compare.VIEW_TEXTS | {"column": compare.TEXTS["column"]},
    ),
    "choices": View(
        styles=("choices.css",),
        scripts=("drawing.js", "beam_tree.js", "draft_ribbon.js", "token_view.js"),
        draw="tokenView.draw",
        title=choices.TEXTS["title"],
        texts=choices.VIEW_TEXTS,
    ),
}


def page(view: View, saved: Mapping[str, Any]) -> str:
    """The page of this view. `saved` is known of what it shows: nothing for a file, for a link all but the data."""
    styles = "".join((HERE / name).read_text("utf-8") for name in (*view.styles, "saved_view.css"))
    scripts = "".join((HERE / name).read_text("utf-8") for name in view.scripts)
    known = json.dumps(saved).replace("<", "\\u003c")
    shows = (HERE / "saved_page.js").read_text("utf-8")
    return PAGE.format(styles=styles, scripts=scripts, draw=view.draw, saved=known, shows=shows)


def _route(path: str, content: str, media_type: str) -> Route:
    async def answer(_: Any) -> HTMLResponse:
        return HTMLResponse(content, media_type=media_type)

    return Route(path, answer)


def routes() -> list[Route]:
    """For each view the page without data, as a text that no browser shows, and the page for the data of a link."""
    found = []
    for name, view in VIEWS.items():
        labels = {each: option.label for each, option in OPTIONS.items()}
        linked = SHARED | {"title": view.title, "texts": view.texts, "labels": labels}
        found.append(_route(f"/saved_view/{name}.txt", page(view, {}), "text/plain"))
        found.append(_route(f"/shared/{name}", page(view, linked), "text/html"))
    return found
