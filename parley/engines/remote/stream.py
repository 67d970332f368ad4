"""One chat completion, streamed by a server: read in the background, and what was heard of it so far."""

import asyncio
import functools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from huggingface_hub import AsyncInferenceClient, set_async_client_factory

from parley.engines.remote import errors
from parley.events import HEARTBEAT, Delta, FinishReason, Usage
from parley.generation.reasoning_parser import ReasoningParser
from parley.models.remote_servers import Server
from parley.settings import Settings, replace_lone_surrogates

FINISHES: dict[str, FinishReason] = {  # those of the standard, and of Text Generation Inference
    "stop": "end",
    "eos_token": "end",
    "length": "length",
    "stop_sequence": "stop string",
}
NO_KEY = "none"  # where nothing is given, the client sends the token for the Hub, which is none of a server's business
CONNECT = 10.0  # seconds
MOST_BYTES = 64_000_000  # of a response
MOST_CHARACTERS = 64  # of a token, on average: no answer has more
MOST_TOKENS = 10**9  # that a server is believed to have counted
END = object()
_starting = threading.Lock()


@dataclass(frozen=True)
class Chunk:
    """What one chunk of the stream says."""

    text: str = ""
    thought: str = ""
    finish: str = ""
    usage: Mapping[str, Any] | None = None
    at: float = field(default_factory=time.monotonic)  # when it came


Inbox = queue.SimpleQueue  # of pieces, and at last an exception or `END`


@contextmanager
def open_stream(server: Server, arguments: Mapping[str, Any]) -> Iterator[Inbox]:
    """Asks for a completion; its pieces come into the inbox. Leaving the block closes the connection, and waits for
    nothing. `arguments` are those of `InferenceClient.chat_completion`.
    """
    inbox: Inbox = queue.SimpleQueue()
    with _starting:
        loop = _loop()
    reading = asyncio.run_coroutine_threadsafe(_read(server, arguments, inbox.put), loop)
    try:
        yield inbox
    finally:
        reading.cancel()


def drain(inbox: Inbox) -> list[object]:
    """All that has come in; waits for something, but no longer than a heartbeat."""
    try:
        items = [inbox.get(timeout=HEARTBEAT)]
    except queue.Empty:
        return []
    while not inbox.empty():
        items.append(inbox.get())
    return items


async def _read(server: Server, arguments: Mapping[str, Any], put: Callable[[object], None]) -> None:
    timeout: Any = (CONNECT, None, CONNECT, CONNECT)  # to connect, to read, to write, for a place in the pool
    try:
        async with AsyncInferenceClient(base_url=server.url, api_key=server.key or NO_KEY, timeout=timeout) as client:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            async for chunk in await client.chat_completion(**arguments, **options):
                put(_piece(chunk))
        put(END)
    except Exception as error:  # it travels the same road as the text
        put(error)


def _piece(chunk: Any) -> Chunk:
    """Raises one of `faults.MALFORMED` for what is no chunk."""
    usage = chunk.usage if isinstance(chunk.usage, Mapping) else None
    if not chunk.choices:  # the last one may have the usage only
        return Chunk(usage=usage)
    choice = chunk.choices[0]
    text = choice.delta.get("content") or ""
    thought = choice.delta.get("reasoning_content") or choice.delta.get("reasoning") or ""
    finish = choice.finish_reason or ""
    if finish == "stop" and isinstance(choice.get("stop_reason"), str):  # vLLM: the stop string that it met
        finish = "stop_sequence"
    if not all(isinstance(each, str) for each in (text, thought, finish)):
        raise TypeError
    return Chunk(replace_lone_surrogates(text), replace_lone_surrogates(thought), finish, usage)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of a response, of which there may be `MOST_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = MOST_BYTES
        async for part in self._stream:
            room -= len(part)
            if room < 0:
                raise errors.ServerError(errors.FLOOD)
            yield part

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._stream.aclose()


async def _received(response: httpx2.Response) -> None:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)
    length = response.headers.get("content-length", "")
    if response.status_code >= 400 and length.isdecimal() and int(length) < 100_000:
        await response.aread()  # why


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop, in a thread of its own, reads from all servers: a request that is cancelled there is closed.

    The clients of that thread, and of nothing else here, are made otherwise than huggingface_hub would: they share the
    list of whom to trust, which takes long to read; take the key along to no other address; and ask a server of one's
    own where HF_HUB_OFFLINE is set too.
    """
    trusted = httpx2.create_ssl_context()
    hooks = {"response": [_received]}
    set_async_client_factory(lambda: httpx2.AsyncClient(verify=trusted, timeout=None, event_hooks=hooks))
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="remote").start()
    return loop


class StreamState:
    """All that was heard of one answer so far."""

    def __init__(self, settings: Settings, before: str = "") -> None:
        """`before` is the answer so far, where it is to be continued."""
        self.text = ReasoningParser(settings.stop_strings)
        self._before = before
        self.pieces = 0
        self.finish: FinishReason | None = None
        self.notices: tuple[str, ...] = ()
        self.fault: Exception | None = None
        self.over = False  # nothing more is of interest
        self._room = MOST_CHARACTERS * settings.max_new_tokens
        self._usage: Mapping[str, Any] | None = None
        self._began = self._last = time.monotonic()
        self._first: float | None = None

    @property
    def silence(self) -> float:
        """For how many seconds nothing has come."""
        return time.monotonic() - self._last

    def take(self, items: Sequence[object]) -> Delta:
        """What is new in them for the reader."""
        text = thought = ""
        for item in items:
            if isinstance(item, Chunk):
                self._last = item.at
                more_text, more_thought = self._read(item)
                text, thought = text + more_text, thought + more_thought
            elif isinstance(item, Exception):
                self.end(item)
            else:
                self.end(errors.ServerError(errors.CUT if self.pieces else errors.NO_STREAM))
            if self.over:
                break
        if text:
            # The server begins a new message: no space stands between it and the last word.
            glue = " " if self._before[-1:].isalnum() and text[0].isalnum() else ""
            text, self._before = glue + text, ""
        return Delta(text=text, thought=thought)

    def end(self, fault: Exception) -> None:
        """Nothing more will come; that is a fault unless there was a finish reason."""
        self.fault, self.over = None if self.finish else fault, True

    def _read(self, piece: Chunk) -> tuple[str, str]:
        self._usage = piece.usage or self._usage
        text = thought = ""
        if (piece.text or piece.thought) and not self.finish:
            self.pieces += 1
            self._first = self._first or piece.at
            room = self._room
            text, thought = self.text.feed(piece.text[:room])
            thought = piece.thought[:room] + thought
            self._room -= len(piece.text) + len(piece.thought)
        if self.text.stopped:
            self.finish, self.over = "stop string", True
        elif self._room < 0:
            self.end(errors.ServerError(errors.FLOOD))
        elif piece.finish and not self.finish:
            self.finish = FINISHES.get(piece.finish, "end")
            if piece.finish not in FINISHES:
                self.notices = (f"the server says {piece.finish[:40]}",)
        self.over = self.over or bool(self.finish and self._usage)
        return text, thought

    def usage(self) -> Usage:
        """What the server says that it cost, else what could be counted here."""
        told = self._usage or {}
        first = None if self._first is None else self._first - self._began
        seconds = self._last - self._began
        prompt, new = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
        if prompt is None or new is None:
            return Usage(0, self.pieces, first, seconds, unit="piece")
        details = told.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        return Usage(prompt, new, first, seconds, cached_tokens=_count(cached) or 0)


def _count(told: object) -> int | None:
    return told if isinstance(told, int) and 0 <= told < MOST_TOKENS else None
