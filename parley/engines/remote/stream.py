"""One streamed chat completion of a server: a background reader, and the state of the answer so far."""

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
from parley.engines.remote.logprobs import token_scores
from parley.events import HEARTBEAT, Delta, FinishReason, TokenScore, Usage
from parley.generation.reasoning_parser import ReasoningParser
from parley.models.remote_servers import Server
from parley.settings import Settings, replace_lone_surrogates

FINISH_REASONS: dict[str, FinishReason] = {  # of OpenAI's API, and of Text Generation Inference
    "stop": "end",
    "eos_token": "end",
    "length": "length",
    "stop_sequence": "stop string",
}
NO_KEY = "none"  # without a key the client would send the Hub token of this machine, which the server must not get
CONNECT_TIMEOUT_SECONDS = 10.0
MAX_RESPONSE_BYTES = 64_000_000
MAX_CHARACTERS_PER_TOKEN = 64  # on average; a longer answer is cut off
MAX_TOKEN_COUNT = 10**9  # a larger count from a server is ignored
END = object()
_starting = threading.Lock()


@dataclass(frozen=True)
class Chunk:
    """The content of one chunk of the stream."""

    text: str = ""
    thought: str = ""
    finish: str = ""
    usage: Mapping[str, Any] | None = None
    scores: tuple[TokenScore, ...] = ()  # where they were asked for
    received_at: float = field(default_factory=time.monotonic)


Inbox = queue.SimpleQueue  # of `Chunk`s; the last item is an exception or `END`


@contextmanager
def open_stream(server: Server, arguments: Mapping[str, Any]) -> Iterator[Inbox]:
    """Sends a request; the chunks of the response arrive in the inbox. Leaving the `with` block closes the connection
    without waiting for it. `arguments` are those of `InferenceClient.chat_completion`.
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
    """All items that have arrived. Waits for the first one, but no longer than a heartbeat."""
    try:
        items = [inbox.get(timeout=HEARTBEAT)]
    except queue.Empty:
        return []
    while not inbox.empty():
        items.append(inbox.get())
    return items


async def _read(server: Server, arguments: Mapping[str, Any], put: Callable[[object], None]) -> None:
    # The timeouts are for connecting, reading, writing, and getting a connection from the pool.
    timeout: Any = (CONNECT_TIMEOUT_SECONDS, None, CONNECT_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS)
    try:
        async with AsyncInferenceClient(base_url=server.url, api_key=server.key or NO_KEY, timeout=timeout) as client:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            async for chunk in await client.chat_completion(**arguments, **options):
                put(_parse(chunk))
        put(END)
    except Exception as error:  # `StreamState.take` handles it, in its place among the chunks
        put(error)


def _parse(chunk: Any) -> Chunk:
    """The `Chunk` for a chunk of huggingface_hub. Raises one of `errors.MALFORMED` if it is malformed."""
    usage = chunk.usage if isinstance(chunk.usage, Mapping) else None
    if not chunk.choices:  # the last chunk may hold the usage only
        return Chunk(usage=usage)
    choice = chunk.choices[0]
    text = choice.delta.get("content") or ""
    thought = choice.delta.get("reasoning_content") or choice.delta.get("reasoning") or ""
    finish = choice.finish_reason or ""
    if finish == "stop" and isinstance(choice.get("stop_reason"), str):  # vLLM: the stop string that it found
        finish = "stop_sequence"
    if not all(isinstance(each, str) for each in (text, thought, finish)):
        raise TypeError
    scores = token_scores((choice.get("logprobs") or {}).get("content") or ())
    return Chunk(replace_lone_surrogates(text), replace_lone_surrogates(thought), finish, usage, scores)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of a response. Raises `ServerError` after `MAX_RESPONSE_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        bytes_left = MAX_RESPONSE_BYTES
        async for part in self._stream:
            bytes_left -= len(part)
            if bytes_left < 0:
                raise errors.ServerError(errors.FLOOD)
            yield part

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._stream.aclose()


async def _on_response(response: httpx2.Response) -> None:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)
    length = response.headers.get("content-length", "")
    if response.status_code >= 400 and length.isdecimal() and int(length) < 100_000:
        await response.aread()  # the reason of the refusal


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop, in its own thread, that reads from all servers. Cancelling a request there closes it.

    Only this thread uses asynchronous clients of huggingface_hub, so it can replace their factory. These clients share
    one SSL context, because reading the trusted certificates is slow; they do not follow redirects, which would send
    the key to another address; and they also work with HF_HUB_OFFLINE set, for a local server.
    """
    ssl_context = httpx2.create_ssl_context()
    hooks = {"response": [_on_response]}
    set_async_client_factory(lambda: httpx2.AsyncClient(verify=ssl_context, timeout=None, event_hooks=hooks))
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="remote").start()
    return loop


class StreamState:
    """The state of one answer: what has arrived so far."""

    def __init__(self, settings: Settings, partial_answer: str = "") -> None:
        """`partial_answer` is the answer to continue, if any."""
        self.parser = ReasoningParser(settings.stop_strings)
        self._partial_answer = partial_answer
        self.num_chunks = 0
        self.scores = list[TokenScore]()  # of the tokens so far, where they were asked for
        self.finish: FinishReason | None = None
        self.notices: tuple[str, ...] = ()
        self.fault: Exception | None = None
        self.over = False  # the rest of the stream is not needed
        self._characters_left = MAX_CHARACTERS_PER_TOKEN * settings.max_new_tokens
        self._usage: Mapping[str, Any] | None = None
        self._started_at = self._last_chunk_at = time.monotonic()
        self._first_chunk_at: float | None = None

    @property
    def silence(self) -> float:
        """Seconds since the last chunk."""
        return time.monotonic() - self._last_chunk_at

    def take(self, items: Sequence[object]) -> Delta:
        """Updates the state with the items of the inbox, and returns their text."""
        text = thought = ""
        folded = False
        for item in items:
            if isinstance(item, Chunk):
                self._last_chunk_at = item.received_at
                more_text, more_thought = self._take_chunk(item)
                if self.parser.folded and item.text:
                    text = thought = ""
                    folded = True
                text, thought = text + more_text, thought + more_thought
            elif isinstance(item, Exception):
                self.end(item)
            else:
                self.end(errors.ServerError(errors.CUT if self.num_chunks else errors.NO_STREAM))
            if self.over:
                break
        if text:
            # The server begins a new message, so the space between two words is missing.
            space = " " if self._partial_answer[-1:].isalnum() and text[0].isalnum() else ""
            text, self._partial_answer = space + text, ""
        return Delta(text=text, thought=thought, replaces=folded)

    def end(self, fault: Exception) -> None:
        """Ends the stream. `fault` is recorded unless a finish reason arrived before."""
        self.fault, self.over = None if self.finish else fault, True

    def _take_chunk(self, chunk: Chunk) -> tuple[str, str]:
        self._usage = chunk.usage or self._usage
        self.scores += chunk.scores
        text = thought = ""
        if (chunk.text or chunk.thought) and not self.finish:
            self.num_chunks += 1
            self._first_chunk_at = self._first_chunk_at or chunk.received_at
            limit = self._characters_left
            text, thought = self.parser.feed(chunk.text[:limit])
            thought = chunk.thought[:limit] + thought
            self._characters_left -= len(chunk.text) + len(chunk.thought)
        if self.parser.stopped:
            self.finish, self.over = "stop string", True
        elif self._characters_left < 0:
            self.end(errors.ServerError(errors.FLOOD))
        elif chunk.finish and not self.finish:
            self.finish = FINISH_REASONS.get(chunk.finish, "end")
            if chunk.finish not in FINISH_REASONS:
                self.notices = (f"the server says {chunk.finish[:40]}",)
        self.over = self.over or bool(self.finish and self._usage)
        return text, thought

    def usage(self) -> Usage:
        """The server's usage, or the number of chunks if the server did not send a valid usage."""
        reported = self._usage or {}
        first = None if self._first_chunk_at is None else self._first_chunk_at - self._started_at
        seconds = self._last_chunk_at - self._started_at
        prompt, new = _count(reported.get("prompt_tokens")), _count(reported.get("completion_tokens"))
        if prompt is None or new is None:
            return Usage(0, self.num_chunks, first, seconds, unit="chunk")
        details = reported.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        return Usage(prompt, new, first, seconds, cached_tokens=_count(cached) or 0)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < MAX_TOKEN_COUNT else None
