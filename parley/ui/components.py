"""Gradio's components for the settings, which pass on any value.

Gradio's own checks would fail outside of the chat function. `Settings.check` does all checks.
"""

from typing import Any

import gradio as gr


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


class Number(gr.Number):
    """A number box that passes on any value, and is empty for None, where stock Gradio first shows 0."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """None for an empty box; any other value unchanged."""
        return None if payload == "" else payload

    def postprocess(self, value: Any) -> Any:
        """An empty box for None; any other value unchanged."""
        return "" if value is None else value
