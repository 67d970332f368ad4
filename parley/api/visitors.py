"""Who asks, as the waiting line knows them, and how a program is told its place."""

import asyncio
import ipaddress
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, TypeVar

import gradio as gr
from gradio.context import LocalContext
from gradio.server_messages import EstimationMessage

from parley.errors import ChatError
from parley.models import registry
from parley.serving.operations import ending
from parley.serving.waiting_line import LINE, POLL_SECONDS, Place, Visitor
from parley.settings import Settings

T = TypeVar("T")
UNREAD = "Nobody waits for this any more."
HOME_BITS = 64  # of an IPv6 address: whoever has one has all that begin with these


def visitor_of(request: gr.Request | None) -> Visitor:
    """The visitor of a page, or the program, that makes this request.

    The address is that of the other end of the connection or, behind a trusted proxy, that which the proxy names.
    """
    client = getattr(request, "client", None)  # a request that Gradio did not make has none
    return Visitor((request and request.session_hash) or "", network(client.host) if client else "")


def network(host: str) -> str:
    """What counts as one address: an IPv4 address, or the network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host  # the name of a socket
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address.packed, HOME_BITS), strict=False))
    return str(address)


async def look(settings: Settings, work: Callable[[threading.Event], T]) -> T:
    """Waits for a place, and runs in a thread what only reads, such as the choices of an answer.

    A visitor looks beside their turns, so that a view opens while an answer is made. Where nobody waits for it any
    more, the event is set that `work` gets. Raises `ChatError`.
    """
    visitor = visitor_of(LocalContext.request.get(None))
    asks = Visitor(f"{visitor.name} looks", visitor.address)
    _, event = _queue_and_event()
    gone = threading.Event()
    with LINE.enter(asks, [registry.find(settings.model)]) as ticket:
        async with aclosing(ticket.places()) as places:
            async for _ in places:
                if event and not event.alive:
                    raise ChatError(UNREAD)
        working = asyncio.ensure_future(asyncio.to_thread(work, gone))
        while not (await asyncio.wait([working], timeout=POLL_SECONDS))[0]:
            if (event and not event.alive) or ending.CUT.is_set():
                gone.set()
    if gone.is_set() and ending.CUT.is_set():
        raise ending.refusal() from working.exception()
    if gone.is_set():
        raise ChatError(UNREAD) from working.exception()
    return working.result()


def _queue_and_event() -> tuple[Any, Any]:
    """Gradio's queue, and its event that this function answers; None where it was called without the queue."""
    blocks, id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or id is None:
        return None, None
    return blocks._queue, blocks._queue.event_ids_to_events.get(id)


class ProgramStatus:
    """What `job.status()` of gradio_client says while a turn waits: its rank, from 0 on, and the expected seconds.

    Gradio says `ITERATING`, without a rank, with everything that a function yields. So call `tell` after a yield.
    """

    def __init__(self) -> None:
        self._place: Place | None = None

    def waits(self, place: Place) -> None:
        """Takes the place."""
        self._place = place

    def tell(self) -> None:
        """Sends the place, if there was a new one."""
        place, self._place = self._place, None
        queue, event = _queue_and_event()
        if place and event:
            rank, seconds = place.number - 1, float(place.seconds)
            message = EstimationMessage(rank=rank, rank_eta=seconds, queue_size=LINE.num_waiting())
            queue.send_message(event, message)
