"""While Budgie is the default for want of a real model: a line that says so, and a button that fetches a real one."""

import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr
from gradio.components import Component

from parley.api.turns.failures import BROKEN
from parley.errors import ChatError
from parley.models import registry
from parley.models.spec import ModelSpec, size_text
from parley.serving import turn
from parley.serving.turn_thread import TurnThread
from parley.ui.controls import choose_model

log = logging.getLogger("parley")

TEXTS = {
    "toy": "This is Budgie, a toy.",
    "fetch": "Fetch {model}",
    "looking": "Looking for {model}…",
    "lost": "The server was not reached. Nothing is lost: press the button again.",
}


def add(inputs: dict[str, Component]) -> None:
    """Adds the line below the message box where Budgie, which comes along, is the default; it goes with Budgie."""
    toy = registry.default().name
    if not registry.lacks_real_model():
        return
    spec = registry.to_download()
    with gr.Row(elem_id="real-model") as line:
        text = gr.Markdown(TEXTS["toy"])
        button = gr.Button(
            TEXTS["fetch"].format(model=spec.label) if spec else "", size="sm", visible=spec is not None
        )
        size = gr.Markdown(size_text(spec.bytes or 0) if spec else "", visible=spec is not None)
    model = inputs["model"]
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    assert isinstance(model, gr.Dropdown)
    model.input(lambda name: gr.update(visible=name == toy), model, line, queue=False, **private)
    if spec is None:
        return
    here, controls = gr.State(False), list(inputs.values())
    outputs: list[Any] = [text, button, size, here]
    fetched = button.click(_fetcher(spec), None, outputs, concurrency_limit=None, **private)
    fetched.failure(lambda: _state(TEXTS["lost"]), None, outputs, queue=False, **private)
    fetched.success(_chooser(spec), [here, *controls], [line, *controls], queue=False, **private)


def _chooser(spec: ModelSpec) -> Any:
    """The event handler that chooses this model once it is here. It sees the settings as they are by then."""

    def choose(here: bool, *values: Any) -> list[Any]:
        return (
            [gr.update(visible=False), *choose_model(spec.name, *values)] if here else [gr.skip()] * (1 + len(values))
        )

    return choose


def _fetcher(spec: ModelSpec) -> Any:
    """The event handler that fetches this model, and says at the end whether it is here."""

    async def fetch() -> AsyncGenerator[list[Any]]:
        """Yields the progress. Who leaves stops the download, unless someone else waits for it."""
        run_id = uuid.uuid4().hex
        running = TurnThread(lambda: turn.stop(run_id))
        yield _state(TEXTS["looking"].format(model=spec.label), fetching=True)
        try:
            async with aclosing(running.deltas(lambda: turn.fetch(run_id, spec))) as deltas:
                async for delta in deltas:
                    yield _state(f"{delta.status}…" if delta.status else None, fetching=True)
        except ChatError as refusal:
            yield _state(str(refusal))
        except Exception:
            log.exception("%s could not be fetched", spec.name)
            yield _state(BROKEN)
        else:
            yield [gr.skip(), gr.skip(), gr.skip(), True]

    return fetch


def _state(text: str | None, fetching: bool = False) -> list[Any]:
    """Updates of the text (None: it stays), the button and the size; the model is not here yet."""
    offer = gr.update(visible=not fetching)
    return [gr.skip() if text is None else gr.update(value=text), offer, offer, False]
