"""Beside the message box: how full the context of the model is with the conversation and the draft."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from parley.errors import ChatError
from parley.events import ContextUse
from parley.messages import build_messages, build_plain_text
from parley.models import registry
from parley.serving import turn
from parley.settings import OPTIONS, Settings

TEXTS = {
    "use": "{tokens} of {context} tokens",
    "unread_turn": "the oldest turn is not read",
    "unread_turns": "the oldest {count} turns are not read",
    "title": "The conversation and the draft. The model reads {limit} tokens, and writes the rest.",
}


def add(inputs: Mapping[str, Component], chat: gr.ChatInterface) -> None:
    """Adds the line below the message box: the chip that opens the settings on a narrow page, and the gauge."""
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    with gr.Row(elem_id="under"):
        gr.Button("Settings", elem_id="chip", size="sm")
        count = gr.Button("Count the tokens", visible="hidden", elem_id="count-tokens")  # context_gauge.js presses it
    gauge = gr.JSON(visible=False)
    arguments = [chat.textbox, chat.chatbot, *inputs.values()]
    counted = count.click(measure, arguments, gauge, js="contextGauge.asked", trigger_mode="always_last", **private)
    counted.success(None, gauge, None, js="contextGauge.show", **private)


async def measure(request: gr.Request, draft: str, shown: Sequence[Any], *values: Any) -> dict[str, Any] | None:
    """What the gauge shows; None where there is nothing to count, or no tokenizer at hand."""
    try:
        use = await asyncio.to_thread(_use, request.session_hash or "", draft or "", shown or [], values)
    except ChatError:  # sending it will show the reason
        use = None
    if use is None:
        return None
    parts = [TEXTS["use"].format(tokens=f"{use.tokens:,}", context=f"{use.context:,}")]
    if use.dropped:
        parts.append(TEXTS["unread_turn" if use.dropped == 1 else "unread_turns"].format(count=use.dropped))
    return {
        "text": " · ".join(parts),
        "title": TEXTS["title"].format(limit=f"{use.limit:,}"),
        "full": use.tokens > use.limit,
        "unread": use.dropped,
    }


def _use(session: str, draft: str, shown: Sequence[Any], values: Sequence[Any]) -> ContextUse | None:
    if not draft.strip() and not shown:
        return None
    named = dict(zip(OPTIONS, values, strict=True))
    spec = registry.find(Settings.check({"model": named["model"]}).model or registry.default().name)
    settings = Settings.check(named | {"model": spec.name}, registry.traits(spec).recommended)
    message = draft if draft.strip() else ""
    if settings.plain:
        messages = build_plain_text(shown, message)
    else:
        messages = build_messages(shown, message, settings.system_prompt)
    return turn.context_use(messages, settings, session)
