"""The look of the page and how it is served: theme, style sheet, head, texts, launch options."""

import json
import os
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from parley import strategies
from parley.api import endpoints, generate, mcp_tools, operations
from parley.api.call_checks import CallChecks
from parley.api.openai import routes as openai_routes
from parley.api.page_head import PageHead
from parley.api.routes import ServedRoutes, UnderPath
from parley.api.security import SecurityMiddleware
from parley.api.turns import cancelling, failures, turn_runner
from parley.api.turns.program_turn import ProgramTurns
from parley.api.unread_streams import UnreadStreams
from parley.config import ROOT_PATH
from parley.events import STATUSES
from parley.models import load_plan
from parley.serving.comparison import GpuWorker
from parley.settings import OPTIONS
from parley.strategies.strategy import GROUPS
from parley.ui import chat_interface, controls, embedding, render, translations
from parley.ui.gradio_patches import GRADIO, NAMES, PatchedScripts
from parley.ui.views import (
    choices,
    compare,
    context_gauge,
    conversations,
    next_token,
    real_model,
    saved_view,
    settings_file,
    strategy_picker,
    watermark_detector,
)
from parley.ui.views.strategy_picker import good, panel_data

HERE = Path(__file__).parent
# In this order: keys.js is the first that hears of a key.
SCRIPTS = (
    *("keys.js", "clipboard.js", "colours.js", "translate.js", "message_text.js", "details.js", "earlier_turns.js"),
    *("views/drawing.js", "views/svg_picture.js", "views/saved_view.js"),
    *("views/beam_tree.js", "views/draft_ribbon.js", "views/token_view.js"),
    # Before panel.js: each closes what Escape is for.
    *("views/next_view.js", "views/choices.js", "views/next_token.js"),
    *("panel.js", "context_gauge.js", "links.js", "conversations.js", "settings_file.js", "turns.js"),
    *("views/compare_view.js", "views/compare.js"),
)
STYLES = (
    *("page.css", "panel.css", "conversations.css", "views/choices.css", "views/next_token.css"),
    *("views/compare_view.css", "views/compare.css"),
)
TITLE = "Parley"
TEXTS = {
    "tagline": "Talk with open language models, and choose how they decode.",
    "colours": "Light or dark",
    "question": "What shall we talk about?",
    "invitation": "An open model answers, word by word. Which one, and how it picks its words, is yours to set.",
    "message": "Message",
    "placeholder": "Message…",
}
# Not translated: the bundled model knows English only.
EXAMPLES = [
    compare.FIRST_LESSON.title,  # which compare.js opens
    "Hello, who are you?",
    "Tell me a story about an owl.",
    "What is top-p sampling?",
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


def english() -> dict[str, str]:
    """All texts of the page that can be translated, by name."""
    tables = {"page": TEXTS, "name": NAMES, "detector": watermark_detector.TEXTS, "panel": controls.TEXTS}
    settings = {n: {"label": o.label, "help": o.help} for n, o in OPTIONS.items()}
    rows = {
        n: {"hint": row.hint, "summary": row.summary, "when": good(row)} for n, row in strategies.STRATEGIES.items()
    }
    turns = {"waiting": turn_runner.WAITING, "broken": failures.BROKEN}
    turns |= {"refused": chat_interface.TEXTS["refused"], "differs": chat_interface.DIFFERS}
    tables |= {"gradio": GRADIO, "answer": render.TEXTS, "ending": render.ENDINGS, "turn": turns, "status": STATUSES}
    tables |= {"gauge": context_gauge.TEXTS, "picker": strategy_picker.TEXTS, "real": real_model.TEXTS}
    tables |= {"plan": load_plan.TEXTS | {n.replace(" ", "_"): t for n, t in load_plan.LABELS.items() if " " in t}}
    tables |= {"choices": choices.TEXTS, "next": next_token.TEXTS}
    tables |= {"group": {group.split()[0].lower(): group for group in GROUPS}}
    tables |= {"conversations": conversations.TEXTS, "preset": {label.lower(): label for label in controls.PRESETS}}
    tables |= {"form": {label.lower().replace(" ", "_"): label for label in controls.FORMS}}
    tables |= {"saved": saved_view.TEXTS, "compare": compare.TEXTS, "comparison": compare.VIEW_TEXTS}
    tables |= {"lesson": {row.name: row.title for row in compare.LESSONS}}
    tables |= {"lesson.says": {row.name: row.says for row in compare.LESSONS}}
    tables |= {f"setting.{name}": texts for name, texts in settings.items()}
    tables |= {f"strategy.{name}": texts for name, texts in rows.items()}
    return {f"{table}.{name}": text for table, texts in tables.items() for name, text in texts.items()}


def _head() -> str:
    languages = f'<meta name="languages" content="{" ".join(translations.LANGUAGES)}">'
    asks = bool(os.environ.get("SPACES_ZERO_GPU"))  # before an answer goes on, which spends seconds of the visitor's
    texts: dict[str, Any] = {
        "texts": controls.TEXTS,
        "conversations": conversations.TEXTS,
        "turns": chat_interface.TEXTS,
        "choices": choices.AT_ONCE,
        "saved": saved_view.TEXTS,
    }
    texts |= {"compare": compare.known_at_once()} | next_token.panel_data()
    data = json.dumps(panel_data() | {"asks": asks} | texts).replace("</", "<\\/")
    known = f'<script type="application/json" id="panel-data">{data}</script>'
    return "".join(((HERE / "head.html").read_text(), languages, known))


LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "favicon_path": HERE / "parley.svg",
    "footer_links": ["gradio"],  # without any, the page grows without end in a frame of a Space
    "app_kwargs": {
        "middleware": [
            Middleware(GZipMiddleware, minimum_size=4096, compresslevel=6),  # not the streams of answers
            Middleware(UnderPath, ROOT_PATH.read()),
            Middleware(SecurityMiddleware),
            Middleware(PageHead, _head(), [HERE / name for name in STYLES], [HERE / name for name in SCRIPTS]),
            Middleware(ServedRoutes),
            Middleware(CallChecks),
            Middleware(PatchedScripts),
            Middleware(UnreadStreams),
        ],
        "routes": [
            *(*cancelling.ROUTES, *openai_routes.ROUTES, *operations.ROUTES),
            *embedding.ROUTES,
            *mcp_tools.routes([compare.TOOL]),
            *(*translations.routes(english()), *compare.ROUTES, *saved_view.routes()),
        ],
    },
    "root_path": ROOT_PATH.read() or None,
    "ssr_mode": False,
    "mcp_server": False,  # ours takes its place: see mcp_tools.py
    "run_history": False,
    "show_error": False,
    "enable_monitoring": False,
    "max_file_size": "1kb",
    "max_threads": 500,  # turns at a time, waiting ones included; with Gradio's 40 the others would wait unnoticed
    "state_session_capacity": 500,  # conversations kept in memory; the oldest are dropped first
}


def header() -> None:
    """The title, and the button for light or dark (see colours.js)."""
    with gr.Row(elem_id="header"):
        gr.Markdown(f"# {TITLE}\n{TEXTS['tagline']}", elem_id="title")
        gr.Button(TEXTS["colours"], size="sm", elem_id="colours")


def chat_components() -> dict[str, Any]:
    """The components of a `gr.ChatInterface`: the chatbot, the textbox, the examples."""
    chatbot = gr.Chatbot(
        elem_id="chat",
        show_label=False,
        height=None,
        layout="bubble",
        editable="all",
        feedback_options=None,
        buttons=["copy"],
        latex_delimiters=MATHEMATICS,
        group_consecutive_messages=False,  # in a group, Copy would also copy the thought and the line of figures
        placeholder=f"## {TEXTS['question']}\n{TEXTS['invitation']}",
    )
    textbox = gr.Textbox(
        elem_id="message",
        label=TEXTS["message"],
        placeholder=TEXTS["placeholder"],
        submit_btn=True,
        stop_btn=True,
        show_label=False,
        container=False,
        max_lines=8,
    )
    examples = [[example] for example in EXAMPLES]
    # Nobody sees these: turns.js and conversations.js press them.
    names = ("begin-turn", "resume-answer", "choose-other-model")
    hidden = {name: gr.Button(name, elem_id=name, visible="hidden") for name in names}
    return {"chatbot": chatbot, "textbox": textbox, "editable": True, "examples": examples, "hidden": hidden}


def add_views(
    page: endpoints.Page, chat: Any, inputs: dict[str, Component], settings: gr.Column, worker: GpuWorker
) -> None:
    """The views below the chat, which is a `gr.ChatInterface`, and below the settings. `worker` has a GPU."""
    compare.add(page, worker)
    page.turns = ProgramTurns(chat.chat_function.runner, worker)
    generate.add(page.turns, list(inputs.values()))
    conversations.add(page, chat, inputs)
    settings_file.add(inputs)
    context_gauge.add(inputs, chat)
    choices.add()
    next_token.add()
    real_model.add(inputs)
    with settings:
        watermark_detector.add(inputs, chat.chatbot)
