"""The look of the page and how it is served: theme, style sheet, head, launch options."""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from parley.guard import Guard

HERE = Path(__file__).parent
TITLE = "Parley"
HEADER = "# Parley\nTalk with open language models, and choose how they decode."
EXAMPLES = [
    "Hello, who are you?",
    "Tell me a story about an owl.",
    "What is top-p sampling?",
    "Write a poem about the moon.",
]

THEME = gr.themes.Base(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="slate",
    radius_size="lg",
    spacing_size="md",
    font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
)

LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css_paths": HERE / "page.css",
    "head_paths": HERE / "head.html",
    "footer_links": ["api", "settings"],
    "app_kwargs": {"middleware": [Middleware(Guard)]},
    "ssr_mode": False,
    "run_history": False,
    "show_error": False,
    "enable_monitoring": False,
    "max_file_size": "1kb",
    "state_session_capacity": 500,  # conversations kept in memory; the oldest go first
}


def chatbot() -> gr.Chatbot:
    """The conversation."""
    return gr.Chatbot(
        elem_id="chat",
        show_label=False,
        height=None,
        layout="bubble",
        editable="user",
        feedback_options=None,
        buttons=["copy"],
        placeholder="<h2>What shall we talk about?</h2>",
    )


def textbox() -> gr.Textbox:
    """The one box to type into."""
    return gr.Textbox(
        elem_id="message",
        placeholder="Message…",
        submit_btn=True,
        stop_btn=True,
        show_label=False,
        container=False,
        max_lines=8,
    )
