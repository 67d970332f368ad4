"""One control per field of `Settings`, created from its definition. Model and strategy decide which are visible."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from parley import strategies
from parley.errors import ModelUnavailable
from parley.models import registry
from parley.models.remote_servers import PLACE
from parley.models.spec import ModelSpec
from parley.serving import turn
from parley.settings import OPTIONS, Option, is_number
from parley.ui.components import Dropdown, Number, Radio, Slider, Textbox
from parley.ui.views import strategy_picker

ANSWER = ("max_new_tokens", "stop", "seed", "thinking", "reasoning_effort")  # of every answer, whatever the strategy
TEXTS = {  # as the page writes them
    **{"title": "Settings", "reset": "Reset all", "close": "Close", "more": "More settings"},
    **{"chat": "Chat", "plain_text": "Plain text", "about": "About this model", "off": "off", "fresh": "fresh"},
    **{"about_setting": "About {label}", "reset_setting": "Reset {label} to {value}", "empty": "empty"},
    "chip": "Settings: {state}",
    "parameters": "{count} million parameters",
    "context": "reads {count} tokens",
    "thinks": "always thinks",
    "changed": "Back to the default, because {model} does not take what you set: {settings}.",
    "unusable": "{label} (cannot be used)",
    "unsuitable": "{label} (not with this model)",
}
IN_CHAT = {
    "system_prompt",
    "answer_start",
    "thinking",
    "thinking_budget",
    "reasoning_effort",
}  # without effect on plain text
PRESETS = {  # of the system prompt
    "Brief": "Answer in one or two short sentences.",
    "Teacher": "You are a patient teacher. Explain step by step, with an example, in simple words.",
    "Storyteller": "You are a storyteller. Answer in vivid scenes, and end with a surprise.",
}
FORMS = {  # of the answer, with what each needs
    "Person": (
        "json_schema",
        '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 40}, '
        '"age": {"type": "integer", "minimum": 0, "maximum": 150}}, '
        '"required": ["name", "age"], "additionalProperties": false}',
    ),
    "Yes or no": ("choices", "yes\nno"),
    "Date": ("regex", "[0-9]{4}-[0-9]{2}-[0-9]{2}"),
}
PRIVATE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def controls() -> dict[str, Component]:
    """The controls by the names of their settings, in the state for the default model.

    Their order: the model, the strategy and its own settings, the answer, the system prompt, more.
    """
    first = registry.default().name
    with gr.Row(elem_id="settings-title"):
        gr.Markdown(f"## {TEXTS['title']}")
        gr.Button(TEXTS["reset"], elem_id="reset-all", size="sm")
        gr.Button(TEXTS["close"], elem_id="close-settings", size="sm")
    placed = ("model", "strategy", *ANSWER, "system_prompt")
    own = [o.name for o in OPTIONS.values() if not o.rare and o.name not in placed]
    components = {name: _control(OPTIONS[name]) for name in ("model", "strategy")}
    for group, names in (("own", own), ("answer", ANSWER)):
        with gr.Column(elem_id=group):
            components |= {name: _control(OPTIONS[name]) for name in names}
    components["system_prompt"] = _control(OPTIONS["system_prompt"])
    with gr.Row(elem_id="presets"):
        for label, text in PRESETS.items():
            gr.Button(label, size="sm").click(lambda text=text: text, None, components["system_prompt"], **PRIVATE)
    with gr.Accordion(TEXTS["more"], open=False, elem_id="more"):
        for name, option in OPTIONS.items():
            if option.rare:
                components[name] = _control(option)
            if name == "answer_pattern":  # the examples stand below the box that they fill
                _add_forms([components["answer_form"], components["answer_pattern"]])
    components["model"].value = first
    for name, update in zip(OPTIONS, for_model(first), strict=True):
        for key, value in update.items():
            if key != "__type__":
                setattr(components[name], key, value)
    return {name: components[name] for name in OPTIONS}


def _add_forms(form: Sequence[Component]) -> None:
    """A button for each example of a form, and of what it needs."""
    with gr.Row(elem_id="forms"):
        for label, values in FORMS.items():
            gr.Button(label, size="sm").click(lambda values=values: list(values), None, form, **PRIVATE)


def messages() -> gr.JSON:
    """The API parameter `messages`, the conversation so far. It is not visible on the page."""
    return gr.JSON(visible=False, label="The messages before this one; if left out, the server keeps the conversation")


def defaults(model: str) -> dict[str, Any]:
    """The value of each setting with this model if the visitor sets none: what the model recommends, or the default.

    Raises `ModelUnavailable`.
    """
    traits = registry.traits(registry.find(model))
    values = {n: o.default for n, o in OPTIONS.items()} | dict(traits.recommended)
    values["exit_layer"] = min(values["exit_layer"], _max_exit_layer(traits))
    return values


def for_model(name: str, chosen: Mapping[str, Any] | None = None) -> list[dict]:
    """An update for each control after another model is chosen: the recommended value, and whether it is visible.

    What the visitor has set, `chosen`, stays where this model takes it. The text under the model names the rest.
    If the visitor typed an invalid name, the reason appears under the box, and nothing else changes.
    """
    try:
        spec = registry.find(name)
    except ModelUnavailable as refusal:
        return [gr.update(info=f"**{refusal}**") if n == "model" else gr.skip() for n in OPTIONS]
    traits, values = registry.traits(spec), defaults(name)
    per_model = {"strategy", "repetition_penalty", "mode", "reasoning_effort"}
    per_model |= {n for row in strategies.STRATEGIES.values() for n in row.settings}
    unusable = _hidden_thinking(traits)
    if "strategy" in spec.capabilities.settings:  # hidden controls must send their default values
        unusable |= set(OPTIONS) - spec.capabilities.settings
    chosen = chosen or {}
    stay = {n: value for n, value in chosen.items() if n not in unusable and _takes(spec, traits, n, value)}
    kept = (set(OPTIONS) - per_model - unusable) | set(stay)
    now = values | stay
    updates = _updates(now["strategy"], now["mode"], spec, traits)
    updates["model"]["info"] = _model_info(spec, traits, [OPTIONS[n].label for n in chosen if n not in stay])
    strategy_traits = registry.strategy_traits(spec, traits)
    updates["strategy"]["choices"] = [
        (TEXTS["unsuitable"].format(label=row.label) if row.refusal(strategy_traits) else row.label, name)
        for name, row in strategies.STRATEGIES.items()
    ]
    updates["mode"]["choices"] = [(each.capitalize(), each) for each in OPTIONS["mode"].choices[not traits.chats :]]
    updates["reasoning_effort"]["choices"] = [OPTIONS["reasoning_effort"].default, *traits.efforts]
    updates["exit_layer"]["maximum"] = _max_exit_layer(traits)
    return [update if n in kept else update | {"value": values[n]} for n, update in updates.items()]


def change_model(name: str, before: Mapping[str, Any] | None, *values: Any) -> list[dict]:
    """An update for each control after the visitor has chosen another model.

    `before` are the defaults of the model before, and `values` those of all controls. What differs, the visitor set.
    """
    now = dict(zip(OPTIONS, values, strict=True))
    updates = for_model(name, {n: v for n, v in now.items() if n != "model" and before and v != before.get(n)})
    # A value that stays is left out: the visitor may have set another one before this update arrives.
    return [
        {key: value for key, value in update.items() if key != "value" or value != now[n]}
        for n, update in zip(OPTIONS, updates, strict=True)
    ]


def _change_model(*given: Any) -> list[dict]:
    """`change_model` without what is shown of the settings, which has an event of its own: see `connect`."""
    return [{key: value for key, value in update.items() if key != "visible"} for update in change_model(*given)]


def _takes(spec: ModelSpec, traits: registry.Traits, name: str, value: Any) -> bool:
    """Whether this model can follow the value that a visitor has set with another one."""
    if name == "strategy" and "strategy" in spec.capabilities.settings:
        return value in strategies.STRATEGIES and not strategies.find(value).refusal(
            registry.strategy_traits(spec, traits)
        )
    if name == "exit_layer":
        return is_number(value) and value <= _max_exit_layer(traits)
    if name == "reasoning_effort":
        return value in traits.efforts
    return name != "mode" or traits.chats or value != "chat"


def reset(names: Sequence[str], model: str) -> list[dict]:
    """An update for each control that gives these settings the values of `defaults` again."""
    try:
        values = {n: value for n, value in defaults(model).items() if n in names and n != "model"}
    except ModelUnavailable:  # `for_model` shows the reason
        values = {}
    return [gr.update(value=values[n]) if n in values else gr.skip() for n in OPTIONS]


def choose_model(name: str, *values: Any) -> list[dict]:
    """An update for each control that chooses this model, as if the visitor had: see `change_model`.

    `values` are those of all controls; without them all are as the model recommends.
    """
    before = None
    if values:
        with contextlib.suppress(ModelUnavailable):  # a name that was typed: what the visitor set is not known
            before = defaults(values[list(OPTIONS).index("model")])
    updates = dict(zip(OPTIONS, change_model(name, before, *values) if before else for_model(name), strict=True))
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
    used = {"strategy", "mode", "system_prompt", "answer_start", "thinking", "reasoning_effort", *row.uses}
    used -= _hidden_thinking(traits)
    used -= IN_CHAT if mode != "chat" else set()
    updates = {n: gr.update(visible=n == "model" or n in used & model.capabilities.settings) for n in OPTIONS}
    unsupported = ", ".join(option.label for option in model.capabilities.unsupported(strategy))
    refusal = row.refusal(registry.strategy_traits(model, traits))
    updates["strategy"]["info"] = f"**{refusal}**" if refusal else strategy_picker.explanation(row, unsupported)
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


def _model_info(spec: ModelSpec, traits: registry.Traits, reset: Sequence[str]) -> str:
    """What is known about the model, shown on demand; in bold what is always shown."""
    size = TEXTS["parameters"].format(count=f"{spec.parameters / 1e6:,.1f}") if spec.parameters else ""
    context = TEXTS["context"].format(count=f"{traits.context:,}") if traits.context else ""
    estimate = turn.estimate(spec, traits)
    thinks = TEXTS["thinks"] if traits.always_thinks else ""
    facts = " · ".join(filter(None, (size, context, thinks, "" if spec.engine == "remote" else spec.licence)))
    place = f"**{PLACE}**" if spec.engine == "remote" else ""
    changed = f"**{TEXTS['changed'].format(model=spec.label, settings=', '.join(reset))}**"
    fits = estimate.sentence if estimate else ""
    fits = fits if not estimate or estimate.fits else f"**{fits}**"
    return "\n".join(filter(None, (changed if reset else "", place, facts, fits)))


def _control(o: Option) -> Component:
    look: dict[str, Any] = {"label": o.label, "info": o.help, "elem_id": f"setting-{o.name}"}
    if o.name == "model":
        rows = registry.models().items()
        models = [
            (TEXTS["unusable"].format(label=row.label) if row.problem else row.label, name) for name, row in rows
        ]
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
        return Number(precision=0, placeholder=TEXTS["fresh"] if o.optional else None, **number)
    return Slider(o.low or 0, o.high or 0, step=o.step, **number)


def connect(components: dict[str, Component]) -> None:
    """Connects the events: choosing another model or strategy updates the controls; what is changed can be reset."""
    outputs = list(components.values())
    model, strategy, mode = components["model"], components["strategy"], components["mode"]
    assert isinstance(model, gr.Dropdown) and isinstance(strategy, gr.Dropdown) and isinstance(mode, gr.Radio)
    usual = gr.JSON(defaults(registry.default().name), visible=False)  # for panel.js, which marks what differs
    names = gr.JSON(visible=False)
    changes = model.input(
        *(_change_model, [model, usual, *outputs], outputs),
        **PRIVATE,
        js="settingsPanel.modelChosen",
        trigger_mode="always_last",
    )
    changes.then(None, js="settingsPanel.modelChanged", **PRIVATE)
    model.change(_usual, model, usual, **PRIVATE)
    reset_button = gr.Button("Reset", visible="hidden", elem_id="reset")  # panel.js presses it
    reset_button.click(reset, [names, model], outputs, js="settingsPanel.toReset", **PRIVATE)
    # One event, whose last run counts. Those of several could overtake one another, and show what was chosen before.
    decides = [strategy, model, mode]
    gr.on(
        [strategy.change, model.change, mode.change],
        for_strategy,
        decides,
        outputs,
        trigger_mode="always_last",
        **PRIVATE,
    )
    gr.on(None, None, [usual, *outputs], js="settingsPanel.show", **PRIVATE)


def _usual(model: str) -> Any:
    try:
        return defaults(model)
    except ModelUnavailable:  # `for_model` shows the reason
        return gr.skip()
