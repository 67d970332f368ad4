"""One control per field of `Settings`, made from its definition; model and strategy decide which are shown."""

from typing import Any

import gradio as gr
from gradio.components import Component

from parley import catalog, strategies
from parley.settings import OPTIONS, Option

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
    """A number box that hands over whatever was sent."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """Unchanged."""
        return payload


def controls() -> dict[str, Component]:
    """The controls by the name of their setting, in order, showing what suits the first model."""
    first = next(iter(catalog.models()))
    made = {name: _control(option) for name, option in OPTIONS.items()}
    made["model"].value = first
    for name, update in zip(OPTIONS, for_model(first), strict=True):
        for key, value in update.items():
            if key != "__type__":
                setattr(made[name], key, value)
    return made


def for_model(name: str) -> list[dict]:
    """An update per control after another model was chosen: its recommended values, and what it can be asked for."""
    traits = catalog.traits(catalog.find(name))
    values = {n: o.default for n, o in OPTIONS.items()} | dict(traits.recommended)
    shown = _shown(values["strategy"], traits.thinking)
    sampling = {n for row in strategies.STRATEGIES.values() for n in row.settings} | {"strategy", "repetition_penalty"}
    return [gr.update(visible=n in shown, **({"value": values[n]} if n in sampling else {})) for n in OPTIONS]


def for_strategy(strategy: str, model: str) -> list[dict]:
    """An update per control after another strategy was chosen."""
    shown = _shown(strategy, catalog.traits(catalog.find(model)).thinking)
    return [gr.update(visible=n in shown) for n in OPTIONS]


def _shown(strategy: str, thinking: bool) -> set[str]:
    always = {"model", "strategy", "system_prompt"} | ({"thinking"} if thinking else set())
    return always | set(strategies.find(strategy).uses)


def _control(o: Option) -> Component:
    look: dict[str, Any] = {"label": o.label, "info": o.help, "elem_id": f"setting-{o.name}"}
    if o.name == "model":
        return Dropdown([(row.label, name) for name, row in catalog.models().items()], **look)
    if o.name == "strategy":
        return Dropdown([(row.label, name) for name, row in strategies.STRATEGIES.items()], **look)
    if o.kind is bool:
        return gr.Checkbox(o.default, **look)
    if o.kind is str:
        return gr.Textbox(o.default, lines=o.lines, max_length=int(o.high or 0) or None, **look)
    if o.optional:
        return Number(o.default, precision=0, placeholder="fresh", **look)
    return Slider(o.low, o.high, o.default, step=o.step, **look)


def connect(made: dict[str, Component]) -> None:
    """Lets another model or strategy change what the controls show."""
    private = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    everything = list(made.values())
    made["model"].input(for_model, made["model"], everything, **private)
    made["strategy"].input(for_strategy, [made["strategy"], made["model"]], everything, **private)
