"""The look of the page and how it is served: theme, style sheet, head, texts, launch options."""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from parley.api import endpoints
from parley.api.unread_streams import UnreadStreams
from parley.ui.controls import MessageBox
from parley.ui.gradio_patches import PatchedScripts
from parley.ui.security import SecurityMiddleware

HERE = Path(__file__).parent
TITLE = "Parley"
HEADER = "# Parley\nTalk with open language models, and choose how they decode. [Settings](#settings)"
INVITATION = (
    "## What shall we talk about?\n"
    "An open model answers, word by word. Which one, and how it picks its words, is yours to set."
)
EXAMPLES = [
    "Hello, who are you?",
    "Tell me a story about an owl.",
    "What is top-p sampling?",
    "Write a poem about the moon.",
]

THEME = gr.themes.Base(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="zinc",
    radius_size="lg",
    font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
).set(
    body_background_fill="white",
    body_background_fill_dark="#141417",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    block_background_fill="*neutral_50",
    block_background_fill_dark="#1b1b1f",
    border_color_primary="*neutral_200",
    border_color_primary_dark="#303036",
    input_border_width="1px",
    input_background_fill="white",
    input_background_fill_dark="#222227",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    color_accent="*primary_600",
    color_accent_soft="*primary_50",
    color_accent_soft_dark="#123a37",
    slider_color="*primary_600",
    slider_color_dark="*primary_500",
)

# Not single dollar signs: message_text.js finds out which of them are mathematics.
MATHEMATICS: list[dict[str, str | bool]] = [
    {"left": left, "right": right, "display": display}
    for left, right, display in (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False))
]


def _head() -> str:
    html, style = ((HERE / name).read_text() for name in ("head.html", "page.css"))
    scripts = (f"<script>{(HERE / name).read_text()}</script>" for name in ("message_text.js", "details.js"))
    return "".join((html, f"<style>{style}</style>", *scripts))


LAUNCH: dict[str, Any] = {
    "theme": THEME,
    # Not Gradio's `css` option, which breaks selectors that contain a comma or are inside of @media.
    "head": _head(),
    "favicon_path": HERE / "parley.svg",
    "footer_links": ["api", "settings"],
    "app_kwargs": {
        "middleware": [Middleware(SecurityMiddleware), Middleware(PatchedScripts), Middleware(UnreadStreams)],
        "routes": endpoints.ROUTES,
    },
    "ssr_mode": False,
    "run_history": False,
    "show_error": False,
    "enable_monitoring": False,
    "max_file_size": "1kb",
    "max_threads": 500,  # turns at a time, waiting ones included; with Gradio's 40 the others would wait unnoticed
    "state_session_capacity": 500,  # conversations kept in memory; the oldest are dropped first
}


def header() -> None:
    """The title, and the link to the settings on a small screen."""
    gr.Markdown(HEADER, elem_id="title")


def chat_components() -> dict[str, Any]:
    """The components of a `gr.ChatInterface`: the chatbot, the textbox, the examples."""
    chatbot = gr.Chatbot(
        elem_id="chat",
        show_label=False,
        height=None,
        layout="bubble",
        editable="user",
        feedback_options=None,
        buttons=["copy"],
        latex_delimiters=MATHEMATICS,
        group_consecutive_messages=False,  # in a group, Copy would also copy the thought and the line of figures
        placeholder=INVITATION,
    )
    textbox = MessageBox(
        elem_id="message",
        placeholder="Message…",
        submit_btn=True,
        stop_btn=True,
        show_label=False,
        container=False,
        max_lines=8,
    )
    examples = [[example] for example in EXAMPLES]
    return {"chatbot": chatbot, "textbox": textbox, "editable": True, "examples": examples}
