"""Visitors of a server over HTTP: each plays one conversation after the other, and asks again at once."""

import functools
import http.client
import json
import statistics
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from benchmarks.share_gpt import Conversation, Workload

SECONDS = 300  # for which a visitor waits for the next piece of an answer
Server = http.client.HTTPConnection
Talk = Sequence[dict[str, str]]  # the messages
SAMPLING = {"temperature": 0.7, "top_k": 50, "top_p": 0.95}


@dataclass(frozen=True)
class Waited:
    """What one answer took: seconds to its first text."""

    turn: int  # its place in the conversation, from 0
    first: float


@dataclass(frozen=True)
class Played:
    """What all conversations took."""

    seconds: float
    tokens: int
    waited: Sequence[Waited]

    @property
    def rate(self) -> float:
        """Tokens of answers a second, of all visitors together."""
        return self.tokens / self.seconds

    @property
    def first(self) -> float:
        """Seconds to the first text, the median."""
        return statistics.median(each.first for each in self.waited)

    @property
    def first_p95(self) -> float:
        """The same for the one in twenty who waits longest."""
        return statistics.quantiles([each.first for each in self.waited], n=20, method="inclusive")[-1]

    @property
    def next_first(self) -> float:
        """The median for those who had asked before."""
        return statistics.median(each.first for each in self.waited if each.turn)


class Asks(Protocol):
    """How a server is asked."""

    def __call__(self, server: Server, talk: Talk, new: int, session: str) -> Iterator[str]:
        """Yields the answer so far each time that there is more of it. `session` is the same for a conversation."""


@dataclass(frozen=True)
class Parley:
    """Asks the app as programs do."""

    model: str
    sampling: bool = False

    def __call__(self, server: Server, talk: Talk, new: int, session: str) -> Iterator[str]:
        """See `Asks`."""
        *before, last = talk
        values = {"model": self.model, "max_new_tokens": new, "messages": before, "message": last["content"]}
        values |= {"strategy": "sampling", **SAMPLING} if self.sampling else {"strategy": "greedy"}
        asked = {"data": list((_parameters(server.host, server.port) | values).values()), "session_hash": session}
        event = json.load(_reply(server, "/gradio_api/call/chat", asked))["event_id"]
        kind, said = "", ""
        for name, value in _events(_reply(server, f"/gradio_api/call/chat/{event}")):
            kind = value if name == "event" else kind
            if name == "data" and kind == "error":
                raise RuntimeError(f"Parley ended an answer with an error: {value}")
            if name == "data" and kind in ("generating", "complete") and (text := json.loads(value)[0]) != said:
                yield (said := text)


@dataclass(frozen=True)
class ChatCompletions:
    """Asks a server for chat completions; greedy search."""

    model: str

    def __call__(self, server: Server, talk: Talk, new: int, session: str) -> Iterator[str]:
        """See `Asks`."""
        asked = {"model": self.model, "messages": talk, "max_tokens": new, "temperature": 0, "stream": True}
        said = ""
        for name, value in _events(_reply(server, "/v1/chat/completions", asked)):
            if name == "data" and value != "[DONE]":
                chunk = json.loads(value)
                if "choices" not in chunk:
                    raise RuntimeError(f"The server ended an answer with an error: {value}")
                if piece := chunk["choices"][0]["delta"].get("content"):
                    yield (said := said + piece)


def play(url: str, asks: Asks, workload: Workload, chats: int, at_once: int) -> Played:
    """Plays all conversations. `chats` visitors take them one after the other, and at most `at_once` visitors ask the
    server at the same time.
    """
    waiting, taking, places = iter(workload.conversations), threading.Lock(), threading.Semaphore(at_once)
    waited = list[Waited]()
    began = time.perf_counter()

    def next_conversation() -> Conversation | None:
        with taking:
            return next(waiting, None)

    def visit() -> None:
        server = Server(urlsplit(url).netloc, timeout=SECONDS)
        for conversation in iter(next_conversation, None):
            talk, session = list[dict[str, str]](), uuid.uuid4().hex
            for turn, question in enumerate(conversation):
                talk.append({"role": "user", "content": question.text})
                first, said = _read(asks(server, talk, question.new, session), places)
                server.close()  # a server ends a connection on which nothing comes for some seconds
                waited.append(Waited(turn, first))
                talk.append({"role": "assistant", "content": said})
        server.close()

    with ThreadPoolExecutor(chats) as visitors:
        for each in [visitors.submit(visit) for _ in range(chats)]:
            each.result()
    return Played(time.perf_counter() - began, workload.new_tokens, waited)


def _read(answer: Iterator[str], places: threading.Semaphore) -> tuple[float, str]:
    """Seconds to the first text, and the whole answer; `RuntimeError` where there is none."""
    sent, first, said = time.perf_counter(), None, ""
    with places:
        for said in answer:  # noqa: B007  (the last one is the whole)
            first = first or time.perf_counter() - sent
    if first is None:
        raise RuntimeError("An answer has no text: ask otherwise.")
    return first, said


@functools.cache
def _parameters(host: str, port: int) -> dict[str, Any]:
    """Those of Parley's chat in their order, with their defaults."""
    told = json.load(_reply(Server(host, port, timeout=SECONDS), "/gradio_api/info"))
    named = told["named_endpoints"]["/chat"]["parameters"]
    return {each["parameter_name"]: each["parameter_default"] for each in named}


def _reply(server: Server, path: str, body: object = None) -> http.client.HTTPResponse:
    """What the server answers to a GET, or to a POST where there is a body; `RuntimeError` for a refusal."""
    given = None if body is None else json.dumps(body)
    server.request("GET" if body is None else "POST", path, given, {"Content-Type": "application/json"})
    reply = server.getresponse()
    if reply.status != http.HTTPStatus.OK:
        raise RuntimeError(f"The server answered {path} with {reply.status}: {reply.read().decode()}")
    return reply


def _events(reply: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """The names and values of server-sent events."""
    for line in reply:
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        yield name, value
