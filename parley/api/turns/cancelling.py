"""The cancel of a call: its turn is stopped, and the call ends as usual, with what there is by then.

Gradio would end the call at once with no result, for which gradio_client raises `KeyError`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from gradio.context import LocalContext
from gradio.data_classes import CancelBody, ResetBody
from gradio.server_messages import ProcessCompletedMessage

MAX_END_SECONDS = 10.0  # for which the end of a stopped turn is waited for
# gradio_client drops what it has not read of a cancelled call once its call of /reset is answered.
READING_SECONDS = 0.5
FORGET_SECONDS = 30.0


@dataclass
class _Call:
    stop: Callable[[], None]
    over: asyncio.Event = field(default_factory=asyncio.Event)


_calls: dict[str, _Call] = {}  # by the id of Gradio's event


@contextmanager
def cancellable_call(stop: Callable[[], None]) -> Iterator[None]:
    """While it is entered, a cancel of the present call of Gradio calls `stop`, which has to end it soon."""
    event_id, call = LocalContext.event_id.get(None), _Call(stop)
    if not event_id:
        yield
        return
    _calls[event_id] = call
    try:
        yield
    finally:
        call.over.set()
        asyncio.get_running_loop().call_later(FORGET_SECONDS, _calls.pop, event_id, None)


async def _end(app: Any, event_id: str) -> None:
    """Ends the call of this event: with what there is if it is one of ours, else at once and with nothing."""
    if call := _calls.get(event_id):
        if not call.over.is_set():
            call.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(call.over.wait(), MAX_END_SECONDS)
            return
    queue = app.get_blocks()._queue
    if event := queue.event_ids_to_events.get(event_id):
        queue.send_message(event, ProcessCompletedMessage(output={}, success=True))  # it closes the client's stream
        event.alive = False  # Gradio checks it after each yield
        await queue.remove_from_queue(event_id)


async def cancel(request: Request, body: CancelBody) -> dict[str, bool]:
    """Ends the call with this event id. Answers once it has ended."""
    await _end(request.app, body.event_id)
    return {"success": True}


async def reset(request: Request, body: ResetBody) -> dict[str, bool]:
    """Ends the call with this event id. gradio_client asks for it after a cancel, and alone if the id was not known.

    Gradio's own endpoint of this name does nothing, so that the call would run to its end.
    """
    await _end(request.app, body.event_id)
    await asyncio.sleep(READING_SECONDS)
    return {"success": True}


ROUTES = [  # they precede Gradio's routes
    APIRoute("/gradio_api/cancel", cancel, methods=["POST"]),
    APIRoute("/gradio_api/reset", reset, methods=["POST"]),
]
