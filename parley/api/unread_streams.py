"""Ends turns whose stream nobody opens: a POST alone must not hold a place. Forgets the sessions of programs.

The page opens the stream of a turn together with the POST, which saves a round trip. A stream that is faster waits.
"""

import asyncio
import json
import re
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parley.api.security import refusal
from parley.serving.operations import ending

MAX_UNOPENED_SECONDS = 10.0  # after the POST that began the turn
LOOK_SECONDS = 1.0  # after which it is looked again whether the stream is still open
FORGET_SECONDS = 1.0  # after which it is looked whether an event has ended
_JOINS = re.compile(r"/gradio_api/(?:queue/join|call/[^/]+|call/v2/[^/]+)/?$")
_READS = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)$")
_READS_SESSION = "/gradio_api/queue/data"


class UnreadStreams:
    """Stands before every request and sees which streams are open. Pure ASGI, so that it changes no stream.

    A turn begins with a POST, which answers with an event id; its text is read by a GET, by event id or by session.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._ending: set[asyncio.Task[None]] = set()  # kept, because the event loop holds its tasks weakly
        self._open: Counter[str] = Counter()  # streams by event id or session
        self._answering = 0  # calls whose answer is their own stream
        ending.IDLE.append(lambda: not self._open and not self._answering)
        self._begun: dict[str, asyncio.Event] = {}  # by the mark of a stream: set when its turn has begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or connection."""
        path, method = scope.get("path", ""), scope.get("method")
        if method == "POST" and _JOINS.search(path):
            if ending.ENDING.is_set():
                await refusal(503, ending.SENTENCE)(scope, receive, send)
            else:
                await self._join(scope, receive, send)
        elif method == "GET" and (reader := _reader(scope)) is not None:
            self._open[reader] += 1
            try:
                has_begun = await self._has_begun(_mark(scope), receive)
                if has_begun and _is_known(scope["app"].get_blocks()._queue, reader):
                    await self._app(scope, receive, send)
                else:
                    sentence = "Nothing runs under this name. Begin a call first."
                    await refusal(404, sentence)(scope, receive, send)
            finally:
                self._open[reader] -= 1
                if not self._open[reader]:
                    del self._open[reader]
                    if _READS.search(path):  # by event id
                        _forget(scope["app"], reader, was_read=True)
        else:
            self._answering += method == "POST"
            try:
                await self._app(scope, receive, send)
            finally:
                self._answering -= method == "POST"

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = b""

        async def send_and_read(message: Message) -> None:
            nonlocal answer
            answer += message.get("body", b"")
            await send(message)

        await self._app(scope, receive, send_and_read)
        if event_id := _event_id(answer):
            if mark := dict(scope["headers"]).get(b"x-stream-mark", b"").decode("latin-1")[:64]:
                self._of(mark).set()
            asyncio.get_running_loop().call_later(MAX_UNOPENED_SECONDS, self._check, scope["app"], event_id)

    def _of(self, mark: str) -> asyncio.Event:
        """The event of this mark, which is forgotten after a while."""
        if mark not in self._begun:
            self._begun[mark] = asyncio.Event()
            asyncio.get_running_loop().call_later(2 * MAX_UNOPENED_SECONDS, self._begun.pop, mark, None)
        return self._begun[mark]

    async def _has_begun(self, mark: str, receive: Receive) -> bool:
        """Waits until the turn of a stream with this mark has begun; False where its reader goes, or none begins.

        Without waiting, Gradio would send what is left of an earlier turn and close the stream. It would end all turns
        of a session when it is handed a stream whose reader has gone.
        """
        if not mark or self._of(mark).is_set():
            return True
        waits = [asyncio.ensure_future(each) for each in (self._of(mark).wait(), _gone(receive))]
        try:
            await asyncio.wait(waits, timeout=MAX_UNOPENED_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return self._of(mark).is_set() and not waits[1].done()
        finally:
            for each in waits:
                each.cancel()

    def _check(self, app: Any, event_id: str) -> None:
        """Ends the event if it still runs or waits, and no stream of it is open; else looks again later.

        Gradio ends it when the reader goes, but not where this was a stream that never got to it.
        """
        queue = app.get_blocks()._queue
        event = queue.event_ids_to_events.get(event_id)
        if event is not None and (self._open[event_id] or self._open[event.session_hash]):
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._check, app, event_id)
            return
        if event is not None:
            task = asyncio.ensure_future(self._end(queue, event))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if not self._open[event_id]:
            _forget(app, event_id, was_read=False)

    async def _end(self, queue: Any, event: Any) -> None:
        """A running event ends after its next yield, at most a heartbeat later."""
        await queue.clean_events(event_id=event._id)
        if self._open[event._id] or self._open[event.session_hash]:
            return  # somebody has come to read it in the meantime
        others = queue.pending_event_ids_session.get(event.session_hash, set())
        others.discard(event._id)
        if not others:  # messages that nobody will read
            queue.pending_event_ids_session.pop(event.session_hash, None)
            queue.pending_messages_per_session.pop(event.session_hash, None)


async def _gone(receive: Receive) -> None:
    """Waits until the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _forget(app: Any, event_id: str, was_read: bool) -> None:
    """Drops, once the event has ended, what Gradio keeps of a session that has the id of this event.

    That is the session of a program that named none, so it never comes back. Gradio would keep 10,000 of them, each
    with its own dictionaries of the page, which are about 140 kB, and their messages for ever. Messages that were
    not read yet stay.
    """
    page = app.get_blocks()
    if event_id in page._queue.event_ids_to_events:
        asyncio.get_running_loop().call_later(FORGET_SECONDS, _forget, app, event_id, was_read)
        return
    page.state_holder.session_data.pop(event_id, None)
    page.state_holder.time_last_used.pop(event_id, None)
    if was_read:
        page._queue.pending_event_ids_session.pop(event_id, None)
        page._queue.pending_messages_per_session.pop(event_id, None)


def _is_known(queue: Any, reader: str) -> bool:
    """Whether this is a session or an event. Gradio would begin a stream for any other name, and break it off."""
    known = reader in queue.pending_messages_per_session or reader in queue.event_ids_to_events
    return known or any(reader in ids for ids in queue.pending_event_ids_session.values())


def _reader(scope: Scope) -> str | None:
    """What a request for a stream reads: an event id or a session, empty if it names none. None for other requests."""
    if scope["path"].endswith(_READS_SESSION):
        return next(iter(parse_qs(scope.get("query_string", b"").decode()).get("session_hash", ())), "")
    found = _READS.search(scope["path"])
    return found[1] if found else None


def _mark(scope: Scope) -> str:
    """The mark by which the page says to which POST a stream belongs; empty for the streams of programs."""
    return next(iter(parse_qs(scope.get("query_string", b"").decode("latin-1")).get("mark", ())), "")[:64]


def _event_id(answer: bytes) -> str:
    try:
        value = json.loads(answer)
    except ValueError:
        return ""
    event_id = value.get("event_id") if isinstance(value, dict) else None
    return event_id if isinstance(event_id, str) else ""
