"""The watermark detector: on the page below the settings of a watermark, and as an API endpoint."""

from typing import Any

import gradio as gr
from gradio.components import Component

from parley import strategies
from parley.errors import ChatError
from parley.models import registry
from parley.serving import turn
from parley.settings import OPTIONS, Settings, replace_lone_surrogates

MAX_CHARACTERS = 10_000


def detect(
    text: str,
    model: str = "",
    strategy: str = "green_list",
    watermark_key: int = OPTIONS["watermark_key"].default,
) -> dict[str, Any]:
    """Whether a text has the watermark of this strategy and key, with the tokens of this model.

    Returns the number of scored tokens, how many standard deviations their score lies above chance (z), and how likely
    a text without the watermark has a score as high (p).
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
    if not isinstance(text, str) or not 0 < len(text) <= MAX_CHARACTERS:
        raise ChatError(f"Give a text of at most {MAX_CHARACTERS:,} characters.")
    found = turn.detect(replace_lone_surrogates(text), settings)
    return {"marked": found.marked, "z": round(found.z, 2), "p": found.p, "scored": found.scored}


def sentence(text: str, model: str, strategy: str, watermark_key: Any) -> str:
    """The result of `detect` as a sentence for the page, also for an error."""
    try:
        found = _detect(text, model, strategy, watermark_key)
    except ChatError as refusal:
        return str(refusal)
    if not found["scored"]:
        return "The text is too short to tell."
    figures = f"z = {found['z']} over {found['scored']} tokens, p = {found['p']:.1g}."
    if found["marked"]:
        return f"**The text has this watermark.** {figures}"
    return f"No sign of this watermark. A short or predictable text shows little of it. {figures}"


def add(inputs: dict[str, Component]) -> None:
    """Adds the detector below the settings, visible while the strategy makes a watermark, and the endpoint /detect."""
    first = strategies.find(inputs["strategy"].value)
    with gr.Column(visible=_marks(first.name), elem_id="detector") as box:
        text = gr.Textbox(
            label="Whose text?", info="Paste a text to look for this mark.", lines=2, max_length=MAX_CHARACTERS
        )
        button = gr.Button("Look for the mark", size="sm")
        found = gr.Markdown(elem_id="detected")
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    arguments = [text, inputs["model"], inputs["strategy"], inputs["watermark_key"]]
    button.click(sentence, arguments, found, **private)
    for each in (inputs["model"], inputs["strategy"]):
        assert isinstance(each, gr.Dropdown)
        each.change(_visibility, [inputs["model"], inputs["strategy"]], box, **private)
    gr.api(detect, api_name="detect")


def _visibility(model: str, strategy: str) -> Any:
    try:
        local = registry.find(model).engine == "local"
    except ChatError:  # the model's control shows the reason
        local = False
    return gr.update(visible=local and _marks(strategy))


def _marks(strategy: str) -> bool:
    return "watermark_key" in strategies.find(strategy).uses
