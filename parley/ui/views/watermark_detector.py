"""Says whether a text bears a watermark: on the page beside the settings that make one, and to programs."""

from typing import Any

import gradio as gr
from gradio.components import Component

from parley import strategies
from parley.errors import ChatError
from parley.models import registry
from parley.serving import turn
from parley.settings import OPTIONS, Settings, replace_lone_surrogates

MOST_CHARACTERS = 10_000


def detect(
    text: str,
    model: str = "",
    strategy: str = "green_list",
    watermark_key: int = OPTIONS["watermark_key"].default,
) -> dict[str, Any]:
    """Whether a text, as that model writes it, bears the watermark of that strategy and key.

    Says how many tokens were scored, how many standard deviations they lie above chance (z), and how likely a text
    without the mark lies as high (p).
    """
    try:
        return _detect(text, model, strategy, watermark_key)
    except ChatError as refusal:
        raise gr.Error(str(refusal), print_exception=False) from refusal


def _detect(text: Any, model: str, strategy: str, watermark_key: Any) -> dict[str, Any]:
    row = registry.find(model)
    settings = Settings.check({"model": row.name, "strategy": strategy, "watermark_key": watermark_key})
    if "watermark_key" not in strategies.find(strategy).uses:
        raise ChatError(f"{strategies.find(strategy).label} leaves no mark. Choose a strategy with a watermark.")
    if not isinstance(text, str) or not 0 < len(text) <= MOST_CHARACTERS:
        raise ChatError(f"Give a text of at most {MOST_CHARACTERS:,} characters.")
    found = turn.detect(replace_lone_surrogates(text), settings)
    return {"marked": found.marked, "z": round(found.z, 2), "p": found.p, "scored": found.scored}


def sentence(text: str, model: str, strategy: str, watermark_key: Any) -> str:
    """The same for the page; an error is a sentence too."""
    try:
        found = _detect(text, model, strategy, watermark_key)
    except ChatError as refusal:
        return str(refusal)
    if not found["scored"]:
        return "The text is too short to tell."
    figures = f"z = {found['z']} over {found['scored']} tokens, by chance as high: {found['p']:.1g}."
    if found["marked"]:
        return f"**It bears this mark.** {figures}"
    return f"No sign of this mark; a short or predictable text bears little of it. {figures}"


def add(inputs: dict[str, Component]) -> None:
    """Puts the question under the settings, shown while they make a mark, and adds /detect for programs."""
    first = strategies.find(inputs["strategy"].value)
    with gr.Column(visible=_marks(first.name), elem_id="detector") as box:
        text = gr.Textbox(
            label="Whose text?", info="Paste a text to look for this mark.", lines=2, max_length=MOST_CHARACTERS
        )
        button = gr.Button("Look for the mark", size="sm")
        found = gr.Markdown(elem_id="detected")
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    asked = [text, inputs["model"], inputs["strategy"], inputs["watermark_key"]]
    button.click(sentence, asked, found, **private)
    for each in (inputs["model"], inputs["strategy"]):
        assert isinstance(each, gr.Dropdown)
        each.change(_shown, [inputs["model"], inputs["strategy"]], box, **private)
    gr.api(detect, api_name="detect")


def _shown(model: str, strategy: str) -> Any:
    try:
        local = registry.find(model).engine == "local"
    except ChatError:  # said where the model was typed
        local = False
    return gr.update(visible=local and _marks(strategy))


def _marks(strategy: str) -> bool:
    return "watermark_key" in strategies.find(strategy).uses
