"""The next token of the text so far: what next_token.js asks the server, and the texts of the view."""

import asyncio
from collections.abc import Mapping
from typing import Any

import gradio as gr

from parley.api.endpoints import typed_text
from parley.api.plain import plain, short
from parley.events import NextToken
from parley.serving import gpu_choices
from parley.serving.gpu_choices import AskedNext
from parley.settings import OPTIONS
from parley.strategies.registry import TRUNCATION
from parley.ui import stored_answer
from parley.ui.views import choices
from parley.ui.views.choices import PRIVATE, labels, messages_of, numbered, settings_of

SLIDERS = ("temperature", *TRUNCATION)  # the settings that shape the distribution
SHARED = {name: choices.VIEW_TEXTS[name] for name in ("entropy", "chain", "token", "by_settings", "by_model", "part")}
TEXTS = {  # of next_token.js and next_view.js, beside those of choices.js
    "open": "Next token",
    "title_next": "The next token",
    "so_far": "The text so far",
    "draw": "Step",
    "take_back": "Take back",
    "failed": choices.AT_ONCE["failed"],
    "hide": "Hide",
    "on": "Let it write on",
    "type": "A text to put in",
    "add": "Put in",
    "guess": "Your guess of the next word",
    "check": "Check",
    "guessed": "“{token}” has {share}, rank {rank}.",
    "covered": "What may follow is covered until you guess.",
    "ended": "The answer has ended. Take a token back to go on.",
    "left": "{count} of {all} tokens are left by the settings",
    "others": "{count} other tokens",
    "scale": "0 to {share}",
    "take": "Take “{token}”, {share}",
    "seconds": "This model runs on a GPU. To look at the next token asks for {count} s of your GPU time.",
    "read": "Look",
}


def add() -> None:
    """Adds the event behind the view."""
    read = gr.Button("Read the next token", elem_id="read-next", visible="hidden")
    asked, found = gr.JSON(visible=False), gr.JSON(visible=False)
    private: dict[str, Any] = PRIVATE | {"queue": False, "trigger_mode": "multiple"}
    reading = read.click(look, asked, found, js="nextToken.asked", **private)
    reading.success(None, found, None, js="nextToken.found", **private)
    reading.failure(None, None, None, js="nextToken.failed", **private)


@numbered
async def look(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the view shows."""
    stored = stored_answer.read(values.get("stored"))
    so_far = stored_answer.read({"ids": values.get("given")}).ids
    settings = await asyncio.to_thread(settings_of, values.get("settings"), True)
    messages = await messages_of(values.get("messages") or [], stored, settings)
    forced, guess = typed_text(values.get("forced") or ""), typed_text(values.get("guess") or "")
    asked = AskedNext(so_far, stored.prompt_ids, forced, guess)
    if seconds := await choices.gpu_seconds(values, asked, messages, settings):
        return {"seconds": seconds}
    found = await choices.with_gpu(settings, lambda gone: gpu_choices.next_token(asked, messages, settings, gone))
    return described(found, settings.effective_strategy.label)


def described(found: NextToken, strategy: str) -> dict[str, Any]:
    """What next_view.js draws."""
    return short(plain(found)) | {"labels": labels(found.chain, strategy), "texts": SHARED}


def panel_data() -> dict[str, Any]:
    """What next_token.js has to know."""
    return {"next": TEXTS, "sliders": [name for name in SLIDERS if name in OPTIONS]}
