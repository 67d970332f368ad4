"""What a program needs before it calls /chat: the models, the strategies, and what it may leave out."""

from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.routing import APIRoute
from gradio.blocks import APIInfo
from gradio.data_classes import ResetBody
from gradio.server_messages import ProcessCompletedMessage

from parley import strategies
from parley.errors import ChatError
from parley.models import registry
from parley.models.remote_servers import PLACE
from parley.serving import turn
from parley.settings import OPTIONS
from parley.strategies.requirements import REQUIREMENTS


def models() -> list[dict[str, Any]]:
    """The models there are: name (for /chat), label, parameters, licence, the values it recommends, how it is run on
    this machine, or why it cannot be, and what that is decided by: the memory in bytes.
    """
    elsewhere = {"remote": PLACE}
    return [
        {
            "name": name,
            "label": row.label,
            "parameters": row.parameters,
            "licence": row.licence,
            "thinking": (traits := registry.traits(row)).thinking,
            "context": traits.context,
            "recommended": dict(traits.recommended),
            "plan": estimate.sentence if (estimate := turn.estimate(row, traits)) else elsewhere.get(row.engine, ""),
            "memory": estimate and estimate.figures,
        }
        for name, row in registry.models().items()
    ]


def list_strategies(model: str = "") -> list[dict[str, Any]]:
    """The decoding strategies there are: name (for /chat), what each does, the settings that it uses with this model
    (if none is named, the first) and their defaults, what it demands, and why this one cannot run it, if so.
    """
    try:
        asked = registry.find(model)
        abilities = registry.strategy_traits(asked)
    except ChatError as refusal:
        raise gr.Error(str(refusal), print_exception=False) from refusal
    return [
        {
            "name": row.name,
            "label": row.label,
            "summary": row.summary,
            "when": row.when,
            "source": row.source,
            "settings": {name: OPTIONS[name].default for name in row.uses if name in asked.capabilities.settings},
            "demands": [REQUIREMENTS[name].needs for name in row.requirements],
            "unavailable": row.refusal(abilities),
        }
        for row in strategies.STRATEGIES.values()
    ]


class Page(gr.Blocks):
    """A page that tells programs what a setting is that they leave out: empty, so that the model's own value is taken.

    Gradio would tell, and its clients would send, what the control shows at first, which is the first model's.
    """

    def get_api_info(self, *args: Any, **kwargs: Any) -> APIInfo:
        """As of Gradio's, but for the defaults of /chat."""
        info = super().get_api_info(*args, **kwargs)
        chat = info["named_endpoints"].get("/chat")
        for parameter in chat["parameters"] if chat else ():
            if parameter["parameter_name"] in OPTIONS:
                parameter["parameter_default"] = None
        return info


async def reset(request: Request, body: ResetBody) -> dict[str, bool]:
    """Ends the call of that id. It is how gradio_client cancels one whose id it did not know yet when it was asked to;
    Gradio's own road of that name does nothing, so that the call would hold its place to the end.
    """
    queue = request.app.get_blocks()._queue
    if event := queue.event_ids_to_events.get(body.event_id):
        queue.send_message(event, ProcessCompletedMessage(output={}, success=True))  # it closes the client's stream
        event.alive = False  # looked at after each yield
        await queue.remove_from_queue(body.event_id)
    return {"success": True}


ROUTES = [APIRoute("/gradio_api/reset", reset, methods=["POST"])]  # before Gradio's own


def add() -> None:
    """Adds /models and /strategies to the page that is being built."""
    gr.api(models, api_name="models", queue=False)
    gr.api(list_strategies, api_name="strategies", queue=False)
