"""One control per field of `Settings`, created from its definition. Model and strategy decide which are visible."""

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

ON_TOP = (
    "model",
    "mode",
    "strategy",
    "thinking",
    "reasoning_effort",
    "system_prompt",
)  # the settings that visitors change most
IN_CHAT = {"system_prompt", "thinking", "thinking_budget", "reasoning_effort"}  # without effect on plain text

# The controls skip Gradio's own checks, which would fail outside the chat function. `Settings.check` does all checks.


class Dropdown(gr.Dropdown):
    """A dropdown that passes on any value."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged."""
        return payload


class Radio(gr.Radio):
    """Buttons that pass on any value."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged."""
        return payload


class Slider(gr.Slider):
    """A slider that passes on any value."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged."""
        return payload


class Textbox(gr.Textbox):
    """A textbox that passes on any value, where stock Gradio would make text of a list."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged."""
        return payload


class MessageBox(gr.Textbox):
    """The textbox for a message. Gradio itself reads the message before the chat function does, so it is text here."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged. Raises `gr.Error` for what is no text, where stock Gradio would make text of it."""
        if not isinstance(payload, str | None):
            raise gr.Error("The message must be text. Put a conversation into `messages`.", print_exception=False)
        return payload


class Number(gr.Number):
    """A number box that passes on any value, and is empty for None, where stock Gradio first shows 0."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """None for an empty box; any other value unchanged."""
        return None if payload == "" else payload

    def postprocess(self, value: Any) -> Any:
        """An empty box for None; any other value unchanged."""
        return "" if value is None else value


def controls() -> dict[str, Component]:
    """The controls by the names of their settings, in the state for the default model."""
    first = registry.default().name
    order = sorted(OPTIONS, key=lambda name: name not in ON_TOP)
    components = {name: _control(OPTIONS[name]) for name in order if not OPTIONS[name].rare}
    with gr.Accordion("More settings", open=False, elem_id="more"):
        components |= {name: _control(OPTIONS[name]) for name in order if OPTIONS[name].rare}
    components["model"].value = first
    for name, update in zip(OPTIONS, for_model(first), strict=True):
        for key, value in update.items():
            if key != "__type__":
                setattr(components[name], key, value)
    return {name: components[name] for name in OPTIONS}


def messages() -> gr.JSON:
    """The API parameter `messages`, the conversation so far. It is not visible on the page."""
    return gr.JSON(visible=False, label="The messages before this one; if left out, the server keeps the conversation")


def for_model(name: str) -> list[dict]:
    """An update for each control after another model is chosen: the recommended value, and whether it is visible.

    If the visitor typed an invalid name, the reason appears under the box, and nothing else changes.
    """
    try:
        spec = registry.find(name)
    except ModelUnavailable as refusal:
        return [gr.update(info=str(refusal)) if n == "model" else gr.skip() for n in OPTIONS]
    traits = registry.traits(spec)
    values = {n: o.default for n, o in OPTIONS.items()} | dict(traits.recommended)
    values["exit_layer"] = min(values["exit_layer"], _max_exit_layer(traits))
    per_model = {"strategy", "repetition_penalty", "mode", "reasoning_effort"}
    per_model |= {n for row in strategies.STRATEGIES.values() for n in row.settings}
    kept = set(OPTIONS) - per_model - _hidden_thinking(traits)
    if "strategy" in spec.capabilities.settings:  # hidden controls must send their default values
        kept &= spec.capabilities.settings
    updates = _updates(values["strategy"], values["mode"], spec, traits)
    updates["model"]["info"] = _model_info(spec, traits)
    strategy_traits = registry.strategy_traits(spec, traits)
    updates["strategy"]["choices"] = [
        (f"{row.label} (not with this model)" if row.refusal(strategy_traits) else row.label, name)
        for name, row in strategies.STRATEGIES.items()
    ]
    updates["mode"]["choices"] = [(each.capitalize(), each) for each in OPTIONS["mode"].choices[not traits.chats :]]
    updates["reasoning_effort"]["choices"] = [OPTIONS["reasoning_effort"].default, *traits.efforts]
    updates["exit_layer"]["maximum"] = _max_exit_layer(traits)
    return [update if n in kept else update | {"value": values[n]} for n, update in updates.items()]


def choose_model(name: str) -> list[dict]:
    """An update for each control that chooses this model."""
    updates = dict(zip(OPTIONS, for_model(name), strict=True))
    updates["model"] |= {"value": name}
    return list(updates.values())


def for_strategy(strategy: str, model: str, mode: str = "chat") -> list[dict]:
    """An update for each control after another strategy or mode is chosen."""
    try:
        spec = registry.find(model)
    except ModelUnavailable:  # `for_model` shows the reason
        return [gr.skip() for _ in OPTIONS]
    return list(_updates(strategy, mode, spec, registry.traits(spec)).values())


def _updates(strategy: str, mode: str, model: ModelSpec, traits: registry.Traits) -> dict[str, dict]:
    row = strategies.find(strategy)
    used = {"strategy", "mode", "system_prompt", "thinking", "reasoning_effort", *row.uses} - _hidden_thinking(traits)
    used -= IN_CHAT if mode != "chat" else set()
    updates = {n: gr.update(visible=n == "model" or n in used & model.capabilities.settings) for n in OPTIONS}
    unsupported = ", ".join(option.label for option in model.capabilities.unsupported(strategy))
    info = f"{row.summary} Not with this model: {unsupported}." if unsupported else row.summary
    updates["strategy"]["info"] = row.refusal(registry.strategy_traits(model, traits)) or info
    return updates


def _hidden_thinking(traits: registry.Traits) -> set[str]:
    """The names of the thinking controls that have no effect on this model."""
    shown = {
        "thinking": traits.thinking,
        "thinking_budget": traits.thinking or traits.always_thinks,
        "reasoning_effort": bool(traits.efforts),
    }
    return {name for name, has_effect in shown.items() if not has_effect}


def _max_exit_layer(traits: registry.Traits) -> int:
    """The last layer but one of the model. At least 2, because a slider needs two values."""
    default = int(OPTIONS["exit_layer"].high or 2)
    return max(2, traits.layers - 1 if traits.layers else default)


def _model_info(spec: ModelSpec, traits: registry.Traits) -> str:
    size = f"{spec.parameters / 1e6:,.1f} million parameters" if spec.parameters else ""
    context = f"reads {traits.context:,} tokens" if traits.context else ""
    estimate = turn.estimate(spec, traits)
    thinks = "always thinks" if traits.always_thinks else ""
    facts = " · ".join(filter(None, (size, context, thinks, PLACE if spec.engine == "remote" else spec.licence)))
    return "\n".join(filter(None, (facts, estimate.sentence if estimate else "")))


def _control(o: Option) -> Component:
    look: dict[str, Any] = {"label": o.label, "info": o.help, "elem_id": f"setting-{o.name}"}
    if o.name == "model":
        rows = registry.models().items()
        models = [(f"{row.label} (cannot be used)" if row.problem else row.label, name) for name, row in rows]
        return Dropdown(models, allow_custom_value=registry.allows_any(), **look)
    if o.name == "strategy":
        return Dropdown([(row.label, name) for name, row in strategies.STRATEGIES.items()], **look)
    if o.name == "mode":
        return Radio([(each.capitalize(), each) for each in o.choices], value=o.default, **look)
    if o.choices:
        return Dropdown(list(o.choices), value=o.default, **look)
    return gr.Checkbox(o.default, **look) if o.kind is bool else _free_control(o, look)


def _free_control(o: Option, look: dict[str, Any]) -> Component:
    """The control for a text or a number."""
    if o.kind is str:
        return Textbox(o.default, lines=o.lines, max_length=int(o.high or 0) or None, **look)
    number = {"value": o.default, **look}
    if o.step is None:
        return Number(precision=0, placeholder="fresh" if o.optional else None, **number)
    return Slider(o.low or 0, o.high or 0, step=o.step, **number)


def connect(components: dict[str, Component]) -> None:
    """Connects the events: choosing another model or strategy updates the controls."""
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    outputs = list(components.values())
    model, strategy, mode = components["model"], components["strategy"], components["mode"]
    assert isinstance(model, gr.Dropdown) and isinstance(strategy, gr.Dropdown) and isinstance(mode, gr.Radio)
    model.input(for_model, model, outputs, **private)
    for each in (strategy, mode):
        each.input(for_strategy, [strategy, model, mode], outputs, **private)
