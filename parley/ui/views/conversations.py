"""Conversations stay in the visitor's browser: conversations.js keeps them, and these events connect it to the page.

Nothing is kept on the server. What comes back from a browser is checked as everything that a visitor sends.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import gradio as gr
from gradio.components import Component

from parley import strategies
from parley.errors import BadSetting, ChatError, ModelUnavailable
from parley.events import Answer, FinishReason, RunRecord
from parley.messages import build_messages, build_plain_text
from parley.models import registry
from parley.serving import turn
from parley.settings import OPTIONS, Settings
from parley.ui import controls, render, stored_answer
from parley.ui.client_snippets import address

TEXTS = {  # of conversations.js
    "list": "Conversations",
    "begin": "New",
    "search": "Search",
    "rename": "Rename",
    "remove": "Delete",
    "undo": "Undo",
    "removed": "Deleted.",
    "none": "Nothing here yet. What you write is kept in this browser only.",
    "versions": "Versions",
    "earlier": "Earlier version",
    "later": "Later version",
    "markdown": "Save as Markdown",
    "json": "Save as JSON",
    "import": "Open a file",
    "close": "Close",
    "untitled": "Untitled",
    "unreadable": "This file has neither a conversation of Parley's nor settings.",
    "blocked": "This browser blocks storage here, so conversations last until this tab is closed.",
    "full": "The browser's storage is full, so this conversation is not kept. Save one as a file, or delete one.",
    "copy": "Another tab has changed this conversation, so this tab goes on with a copy.",
    "elsewhere": "This was made with another model file, engine or kind of machine, so words may differ.",
    "goOn": "Continue",
    "unanswered": "The page was closed before the answer began. Press Retry.",
    "link": "Copy link",
    "embed": "Copy embed code",
    "copied": "Copied.",
    "settings": "Save settings",
    "settings_saved": "Saved as generation_config.json, which transformers reads too.",
    "settings_opened": "The settings of the file are set.",
    "others": "The file has other names too, which this strategy does not use: {names}.",
}
HIDDEN: dict[str, Any] = {"visible": "hidden"}
NEEDED = {"answer_form": ("answer_pattern",)}  # settings that are checked together with others
PRESSED = ("open-conversation", "apply-settings", "remake-details", "compare-fingerprints")  # by conversations.js


def add(page: gr.Blocks, chat: Any, inputs: dict[str, Component]) -> None:
    """Adds the button that opens the list of conversations, and the events."""
    gr.Button(TEXTS["list"], elem_id="show-conversations", size="sm")
    hidden = {name: gr.Button(name, elem_id=name, **HIDDEN) for name in PRESSED}
    # What is said has a box of its own for each event: both run when a page is opened.
    given, applied, compared = (gr.Textbox(**HIDDEN) for _ in range(3))
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    values = list(inputs.values())
    restored = [chat.chatbot, chat.textbox]
    page.load(None, values, restored, js="conversations.start", **private)
    hidden["open-conversation"].click(None, None, restored, js="conversations.taken", **private)
    remade = [chat.chatbot, given], chat.chatbot
    hidden["remake-details"].click(remake, *remade, js="conversations.unfolded", **private).success(
        None, chat.chatbot, None, js="conversations.absorb", **private
    )
    applying = hidden["apply-settings"].click(apply, given, [*values, applied], js="conversations.settings", **private)
    applying.success(None, applied, None, js="conversations.applied", **private)
    applying.failure(None, None, None, js="conversations.settled", **private)
    hidden["compare-fingerprints"].click(differs, given, compared, js="conversations.made", **private).then(
        None, compared, None, js="conversations.compared", **private
    )
    gr.on(
        [each.change for each in values],  # type: ignore[attr-defined]
        None,
        values,
        None,
        js="conversations.keepSettings",
        **private,
    )


def apply(text: str) -> list[Any]:
    """An update for each control that shows the settings of this JSON, and what is to be said of it, as JSON: a notice
    that names what was refused, and whether the model can answer at once and for nothing.
    """
    updates, refused = for_values(values_of(text))
    named = dict(zip(OPTIONS, updates, strict=True))
    at_once = turn.answers_at_once(registry.find(named["model"]["value"]))
    return [*updates, json.dumps({"notice": " ".join(refused), "atOnce": at_once})]


def checked(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Those of these settings that are valid, and a sentence for each other one. Numbers may be text, as in a link."""
    given, refused = dict[str, Any](), []
    for name, value in values.items():
        beside = {each: values[each] for each in NEEDED.get(name, ()) if each in values}
        try:
            given[name] = getattr(Settings.check({**beside, name: typed(name, value)}), name)
        except BadSetting as refusal:
            refused.append(str(refusal))
    return given, list(dict.fromkeys(refused))


def for_values(values: Mapping[str, Any]) -> tuple[list[dict], list[str]]:
    """An update for each control that shows these settings, and a sentence for each that was refused.

    What is refused is left as the model has it.
    """
    given, refused = checked(values)
    try:
        spec = registry.find(given.pop("model", ""))
    except ModelUnavailable as refusal:
        refused.append(str(refusal))
        spec = registry.default()
    updates = dict(zip(OPTIONS, controls.choose_model(spec.name), strict=True))
    strategy = given.get("strategy", updates["strategy"]["value"])
    mode = given.get("mode", OPTIONS["mode"].default)
    for name, update in zip(OPTIONS, controls.for_strategy(strategy, spec.name, mode), strict=True):
        updates[name] |= update | ({"value": given[name]} if name in given else {})
    if (no := strategies.find(strategy).refusal(registry.strategy_traits(spec))) and "strategy" in given:
        refused.append(no)
    return list(updates.values()), refused


def typed(name: str, value: Any) -> Any:
    """The value as the setting has it, where it is text that means one, as in a link."""
    option = OPTIONS.get(name)
    if option is None or option.kind is str or not isinstance(value, str):
        return value
    if option.kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    try:
        return float(value) if value else None
    except ValueError:
        return value


def values_of(text: str) -> dict[str, Any]:
    """The object of this JSON; an empty one for anything else."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def remake(shown: list[Any], text: str, request: gr.Request) -> Any:
    """The messages shown, with the details of the stats line that was unfolded made anew: they are not stored."""
    asked = values_of(text)
    index, stored = asked.get("index"), stored_answer.read(asked.get("stored"))
    if not isinstance(index, int) or not 0 < index < len(shown) or not stored.settings:
        return gr.skip()
    end = next((i + 1 for i in reversed(range(index)) if shown[i]["role"] == "user"), 0)
    try:
        answer = _answer(shown[:end], stored)
    except ChatError as refusal:
        text = str(refusal)
    else:
        text = render.details(answer, address(request))
    return [*shown[:index], shown[index] | {"content": [{"type": "text", "text": text}]}, *shown[index + 1 :]]


def _answer(history: list[Any], stored: stored_answer.StoredAnswer) -> Answer:
    """A stored answer, with what ran. Raises `ChatError`."""
    settings = Settings.check(stored.settings)
    seed = settings.seed or 0
    plain = settings.plain
    messages = build_plain_text(history, "") if plain else build_messages(history, "", settings.system_prompt)
    values = {name: value for name, value in settings.model_dump().items() if value != OPTIONS[name].default}
    record = turn.run_record(messages, settings, seed) or RunRecord("", {}, "", messages, values)
    finish = cast(FinishReason, stored.finish if stored.finish in render.ENDINGS else "stopped")
    drawn = seed if settings.effective_strategy.samples else None
    return Answer(finish=finish, usage=stored.usage, seed=drawn, run_record=record)


def differs(text: str) -> str:
    """Whether another thing made this stored answer than would answer now; empty where that is not known."""
    stored = stored_answer.read(values_of(text))
    current = turn.POOL.fingerprint(str(stored.settings.get("model", "")))
    return "differs" if current and stored.fingerprint and current != stored.fingerprint else ""
