"""The watermark detector: on the page below the settings of a watermark, and as an API endpoint."""

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from parley import strategies
from parley.api.visitors import look
from parley.errors import ChatError
from parley.models import registry
from parley.serving import turn
from parley.settings import OPTIONS, Settings, replace_lone_surrogates
from parley.strategies.processors.watermark_detection import MAX_P_VALUE, Verdict

MAX_CHARACTERS = 10_000
FULL = 10  # the length of a full bar; in its middle the text begins to count as marked
TEXTS = {
    "last": "Check the last answer",
    "pasted": "Or a text from elsewhere",
    "check": "Check this text",
    "unanswered": "There is no answer yet. Ask something first.",
    "needed": "Whoever has the key can find the mark, in most texts of {count} tokens and more.",
    "counted": "{count} tokens counted",
    Verdict.FOUND.name: "Found: the text has this mark.",
    Verdict.UNSURE.name: "The text is too short or too predictable to say.",
    Verdict.NONE.name: "No sign of this mark.",
}


async def detect(
    text: str,
    model: str = "",
    strategy: str = "green_list",
    watermark_key: int = OPTIONS["watermark_key"].default,
) -> dict[str, Any]:
    """Whether a text has the watermark of this strategy and key, with the tokens of this model.

    Returns the verdict (found, no sign, or too short or too predictable to say), the number of scored tokens, how many
    standard deviations their score lies above chance (z), and how likely a text without the watermark has a score as
    high (p).
    """
    try:
        return await _detect(text, model, strategy, watermark_key)
    except ChatError as refusal:
        raise gr.Error(str(refusal), print_exception=False) from refusal


async def _detect(text: Any, model: str, strategy: str, watermark_key: Any) -> dict[str, Any]:
    spec, row = registry.find(model), strategies.find(strategy)
    settings = Settings.check({"model": spec.name, "strategy": strategy, "watermark_key": watermark_key})
    if not row.watermark:
        raise ChatError(f"{row.label} leaves no mark. Choose a strategy with a watermark.")
    if not isinstance(text, str) or not 0 < len(text) <= MAX_CHARACTERS:
        raise ChatError(f"Give a text of at most {MAX_CHARACTERS:,} characters.")
    found = await look(settings, lambda _: turn.detect(replace_lone_surrogates(text), settings))
    verdict = found.verdict(row.mark_tokens)
    return {
        "verdict": verdict.value,
        "marked": found.marked,
        "z": round(found.z, 2),
        "p": found.p,
        "scored": found.scored,
        "needed": row.mark_tokens,
    }


async def report(text: str, model: str, strategy: str, watermark_key: Any) -> Any:
    """An update of the result on the page: the verdict, a bar (see page.css), and the figures; also an error."""
    try:
        found = await _detect(text, model, strategy, watermark_key)
    except ChatError as refusal:
        return _result(str(refusal))
    evidence = math.log10(max(found["p"], 1e-300)) / math.log10(MAX_P_VALUE)  # from 1 on the mark is found
    figures = f"{TEXTS['counted'].format(count=found['scored'])} · z = {found['z']} · p = {found['p']:.1g}"
    share = min(FULL, int(evidence * FULL / 2))
    return _result(f"**{TEXTS[Verdict(found['verdict']).name]}**\n\n{figures}", f"evidence-{share}")


async def report_last_answer(shown: Sequence[Any], *arguments: Any) -> Any:
    """The same for the last answer of the conversation."""
    answers = (message for message in reversed(shown) if _says(message))
    text = "".join(part.get("text", "") for part in next(answers, {"content": []})["content"])
    return await report(text[:MAX_CHARACTERS], *arguments) if text else _result(TEXTS["unanswered"])


def _result(text: str, bar: str = "") -> Any:
    return gr.update(value=text, elem_classes=[bar] if bar else [])


def _says(message: Any) -> bool:
    """Whether a message of the chatbot is the text of an answer, and no folded one."""
    return message["role"] == "assistant" and not (message.get("metadata") or {}).get("title")


def add(inputs: dict[str, Component], chatbot: gr.Chatbot) -> None:
    """Adds the detector below the settings, visible while the strategy makes a watermark, and the endpoint /detect."""
    first = strategies.find(inputs["strategy"].value)
    with gr.Column(visible=bool(first.watermark), elem_id="detector") as box:
        needed = gr.Markdown(_needed(first), elem_id="needed")
        last = gr.Button(TEXTS["last"], size="sm")
        text = gr.Textbox(label=TEXTS["pasted"], lines=2, max_length=MAX_CHARACTERS)
        check = gr.Button(TEXTS["check"], size="sm")
        found = gr.Markdown(elem_id="detected")
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    arguments = [inputs["model"], inputs["strategy"], inputs["watermark_key"]]
    last.click(report_last_answer, [chatbot, *arguments], found, **private)
    check.click(report, [text, *arguments], found, **private)
    for each in (inputs["model"], inputs["strategy"]):
        assert isinstance(each, gr.Dropdown)
        each.change(_updates, [inputs["model"], inputs["strategy"]], [box, needed, found], **private)
    gr.api(detect, api_name="detect")


def _updates(model: str, strategy: str) -> list[Any]:
    """Updates of the detector, its first line, and its result, after another model or strategy is chosen."""
    try:
        local = registry.find(model).engine == "local"
    except ChatError:  # the model's control shows the reason
        local = False
    row = strategies.find(strategy)
    return [gr.update(visible=local and bool(row.watermark)), gr.update(value=_needed(row)), _result("")]


def _needed(row: strategies.Strategy) -> str:
    return TEXTS["needed"].format(count=row.mark_tokens)
