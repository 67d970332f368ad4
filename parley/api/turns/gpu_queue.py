"""Leaves the queue for a GPU of ZeroGPU."""

import asyncio
from typing import Any

from gradio.context import LocalContext

from parley.serving.waiting_line import POLL_SECONDS

_tasks: set[asyncio.Task[None]] = set()  # keeps the tasks alive: the event loop has only weak references


def leave_gpu_queue() -> None:
    """Takes the turn of the current request out of the queue for a GPU. Call it on the event loop.

    `spaces` leaves the queue once Gradio's event is not alive. The event has to stay alive until the page has received
    its last message.
    """
    blocks, id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    jobs = blocks._queue.active_jobs if blocks else []

    async def end(event: Any) -> None:
        while any(event in (job or ()) for job in jobs):
            await asyncio.sleep(POLL_SECONDS)
        event.alive = False

    for event in [event for job in jobs for event in job or () if event._id == id]:
        task = asyncio.get_running_loop().create_task(end(event))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
