"""The queue for a GPU of ZeroGPU, as far as this process sees it."""

import asyncio
from typing import Any

from gradio.context import LocalContext

from parley.serving.waiting_line import POLL_SECONDS

_tasks: set[asyncio.Task[None]] = set()  # kept, because the event loop holds its tasks weakly


def leave_gpu_queue() -> None:
    """Takes the turn of the present request out of the queue for a GPU. To be called on the event loop.

    `spaces` leaves the queue when Gradio's event is not alive. The event must stay alive until the page has its last
    message.
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
