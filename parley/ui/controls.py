"""One control per field of `Settings`, made from its definition; model and strategy decide which are shown."""

from typing import Any

import gradio as gr
from gradio.components import Component

from parley import strategies
from parley.errors import ModelUnavailable
from parley.models import registry
from parley.models.remote_servers import PLACE
from parley.models.spec import ModelSpec
from parley.serving import turn
from parley.settings import OPTIONS, Option

ON_TOP = ("model", "strategy", "thinking", "system_prompt")  # what a visitor is likeliest to change

# Gradio's own checks fail outside the chat function, with a sentence of their own; `Settings.check` does all of it.


class Dropdown(gr.Dropdown):
    """A dropdown that hands over whatever was sent."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged."""
        return payload


class Slider(gr.Slider):
    """A slider that hands over whatever was sent."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged."""
        return payload


class Number(gr.Number):
    """A number box that hands over whatever was sent, and is empty for None, where stock Gradio first shows a 0."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged, but for the empty box."""
        return None if payload == "" else payload

    def postprocess(self, value: Any) -> Any:
        """Unchanged, but for the empty box."""
        return "" if value is None else value


def controls() -> dict[str, Component]:
    """The controls by the name of their setting, showing what suits the first model."""
    first = next(iter(registry.models()))
    order = sorted(OPTIONS, key=lambda name: name not in ON_TOP)
    made = {name: _control(OPTIONS[name]) for name in order if not OPTIONS[name].rare}
    with gr.Accordion("More settings", open=False, elem_id="more"):
        made |= {name: _control(OPTIONS[name]) for name in order if OPTIONS[name].rare}
    made["model"].value = first
    for name, update in zip(OPTIONS, for_model(first), strict=True):
        for key, value in update.items():
            if key != "__type__":
                setattr(made[name], key, value)
    return {name: made[name] for name in OPTIONS}


def messages() -> gr.JSON:
    """The whole conversation, for programs. It is not on the page."""
    return gr.JSON(visible=False, label="The whole conversation; leave out to have it kept")


def for_model(name: str) -> list[dict]:
    """An update per control after another model was chosen: its recommended values, and what it can be asked for.

    A name that somebody typed and that cannot be is answered under the box; the rest stays as it is.
    """
    try:
        row = registry.find(name)
    except ModelUnavailable as refusal:
        return [gr.update(info=str(refusal)) if n == "model" else gr.skip() for n in OPTIONS]
    traits = registry.traits(row)
    values = {n: o.default for n, o in OPTIONS.items()} | dict(traits.recommended)
    values["exit_layer"] = min(values["exit_layer"], _last_exit(traits))
    sampling = {n for row in strategies.STRATEGIES.values() for n in row.settings} | {"strategy", "repetition_penalty"}
    kept = set(OPTIONS) - sampling - ({"thinking"} if not traits.thinking else set())
    if "strategy" in row.capabilities.settings:  # what is hidden then must not be sent with another value
        kept &= row.capabilities.settings
    updates = _updates(values["strategy"], row, traits)
    updates["model"]["info"] = _about(row, traits)
    abilities = registry.strategy_traits(row, traits)
    updates["strategy"]["choices"] = [
        (f"{each.label} (not with this model)" if each.refusal(abilities) else each.label, name)
        for name, each in strategies.STRATEGIES.items()
    ]
    updates["exit_layer"]["maximum"] = _last_exit(traits)
    return [update if n in kept else update | {"value": values[n]} for n, update in updates.items()]


def for_strategy(strategy: str, model: str) -> list[dict]:
    """An update per control after another strategy was chosen."""
    try:
        row = registry.find(model)
    except ModelUnavailable:  # said where the model was typed
        return [gr.skip() for _ in OPTIONS]
    return list(_updates(strategy, row, registry.traits(row)).values())


def _updates(strategy: str, model: ModelSpec, traits: registry.Traits) -> dict[str, dict]:
    row = strategies.find(strategy)
    thinks = {"thinking", "thinking_budget"}
    asked = {"strategy", "system_prompt", *row.uses, *thinks} - (set() if traits.thinking else thinks)
    updates = {n: gr.update(visible=n == "model" or n in asked & model.capabilities.settings) for n in OPTIONS}
    lacking = ", ".join(option.label for option in model.capabilities.unsupported(strategy))
    told = f"{row.summary} Not with this model: {lacking}." if lacking else row.summary
    updates["strategy"]["info"] = row.refusal(registry.strategy_traits(model, traits)) or told
    return updates


def _last_exit(traits: registry.Traits) -> int:
    """The last layer after which a model can exit early, and have one left; a slider needs two values at least."""
    most = int(OPTIONS["exit_layer"].high or 2)
    return max(2, traits.layers - 1 if traits.layers else most)


def _about(row: ModelSpec, traits: registry.Traits) -> str:
    size = f"{row.parameters / 1e6:,.1f} million parameters" if row.parameters else ""
    reads = f"reads {traits.context:,} tokens" if traits.context else ""
    estimate = turn.estimate(row, traits)
    facts = " · ".join(filter(None, (size, reads, PLACE if row.engine == "remote" else row.licence)))
    return "\n".join(filter(None, (facts, estimate.sentence if estimate else "")))


def _control(o: Option) -> Component:
    look: dict[str, Any] = {"label": o.label, "info": o.help, "elem_id": f"setting-{o.name}"}
    if o.name == "model":
        models = [(spec.label, name) for name, spec in registry.models().items()]
        return Dropdown(models, allow_custom_value=registry.allows_any(), **look)
    if o.name == "strategy":
        return Dropdown([(row.label, name) for name, row in strategies.STRATEGIES.items()], **look)
    if o.choices:
        return Dropdown(list(o.choices), value=o.default, **look)
    return gr.Checkbox(o.default, **look) if o.kind is bool else _free_control(o, look)


def _free_control(o: Option, look: dict[str, Any]) -> Component:
    """For text and numbers."""
    if o.kind is str:
        return gr.Textbox(o.default, lines=o.lines, max_length=int(o.high or 0) or None, **look)
    number = {"value": o.default, **look}
    if o.step is None:
        return Number(precision=0, placeholder="fresh" if o.optional else None, **number)
    return Slider(o.low or 0, o.high or 0, step=o.step, **number)


def connect(made: dict[str, Component]) -> None:
    """Lets another model or strategy change what the controls show."""
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    everything = list(made.values())
    model, strategy = made["model"], made["strategy"]
    assert isinstance(model, gr.Dropdown) and isinstance(strategy, gr.Dropdown)
    model.input(for_model, model, everything, **private)
    strategy.input(for_strategy, [strategy, model], everything, **private)
