"""Faults in the middle of a turn."""

import json
import socket
from contextlib import contextmanager

import httpx2
import pytest
from gradio_client import Client

from parley.generation.streaming import AnswerStreamer
from parley.serving import turn
from tests.conftest import until
from tests.engines.openvino.passes import watched
from tests.faults.world import STORY, Told, ask

LATER = 4  # a pass in the answer, before drafts that are accepted can have ended it


def fail(*_, **__):
    """What a library may raise."""
    raise RuntimeError("the library failed")


def at_pass(happens, number=LATER):
    """Something happens in that pass of Budgie."""

    @contextmanager
    def fault(world):
        decoder = world.inside.engine("budgie").loaded.model.decoder

        def now():
            with watched(decoder, lambda count: happens() if count >= number else None):
                return ask(world.inside.url)

        yield now, lambda: ask(world.inside.url)

    return fault


def in_pytorch(happens):
    """Something happens to the output of a pass of a model that PyTorch runs, and of all that follow."""

    @contextmanager
    def fault(world):
        scheduler, passes = world.inside.engine("stateful").loaded.model.forward, []
        forward, patch = scheduler._forward, pytest.MonkeyPatch()

        def spoilt(*given, **named):
            output = forward(*given, **named)
            passes.append(1)
            if len(passes) >= LATER:
                happens(output)
            return output

        patch.setattr(scheduler, "_forward", spoilt)
        yield lambda: ask(world.inside.url, "stateful"), lambda: patch.undo() or ask(world.inside.url, "stateful")

    return fault


@contextmanager
def in_thread_of_turn(world):
    """The streamer, which runs in the thread that generates, fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerStreamer, "take", lambda *_: fail())
        yield lambda: ask(world.inside.url), lambda: patch.undo() or ask(world.inside.url)


def not_finite(**values):
    """The logits of a pass are NaN, and of all that follow."""

    @contextmanager
    def fault(world):
        decoder, passes = world.inside.engine("budgie").loaded.model.decoder, []
        infer = decoder._infer
        patch = pytest.MonkeyPatch()

        def spoilt(*given):
            output = infer(*given)
            passes.append(1)
            if len(passes) >= LATER:
                output.logits[...] = float("nan")
            return output

        patch.setattr(decoder, "_infer", spoilt)
        try:
            yield lambda: ask(world.inside.url, **values), lambda: patch.undo() or ask(world.inside.url)
        finally:
            patch.undo()

    return fault


@contextmanager
def without_blocks(world):
    """Something holds all blocks but a few."""
    engine = world.inside.engine("endless")
    engine.prefix_cache.clear()
    pool, held = engine.loaded.model.decoder.pool, []

    def now():
        while pool.num_free > 7:
            held.append(pool.allocate())
        return ask(world.inside.url, "endless", max_new_tokens=2000)

    def then():
        pool.release(held)
        return ask(world.inside.url, "endless")

    yield now, then


@contextmanager
def beside_a_fault(world):
    """Another visitor's pass fails while an answer streams."""
    model = world.inside.engine("stateful").loaded.model

    def other():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "forward", fail)
            assert ask(world.inside.url, "stateful").sentence

    yield lambda: ask(world.inside.url, "parrot", other, message=STORY * 8), lambda: ask(world.inside.url)


@contextmanager
def two_tabs(world):
    """Both answers are whole."""
    client = Client(world.inside.url, verbose=False)

    def now():
        asked = {"model": "budgie", "max_new_tokens": 20, "strategy": "greedy", "api_name": "/chat"}
        jobs = [client.submit(STORY, messages=[], **asked) for _ in range(2)]  # else one may come after the other
        first, second = (job.result(timeout=120) for job in jobs)
        assert first == second
        return Told(first)

    yield now, lambda: ask(world.inside.url)


def begin(url, **values):
    """Begins a turn; returns the path of its stream."""
    body = {"message": STORY, "max_new_tokens": 60, **values}
    event = httpx2.post(f"{url}/gradio_api/call/v2/chat", json=body, timeout=60).json()["event_id"]
    return f"/gradio_api/call/chat/{event}"


@contextmanager
def slow_reader(world):
    """The stream is opened, and read when all of it was sent."""

    def now():
        path = begin(world.inside.url, model="budgie")
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            reader.connect(("127.0.0.1", httpx2.URL(world.inside.url).port))
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            until(turn.running)
            until(lambda: not turn.running())
            read = b"".join(iter(lambda: reader.recv(64), b"")).decode()
        lines = [line.removeprefix("data: ") for line in read.splitlines() if line.startswith('data: ["')]
        assert "event: complete" in read
        return Told(json.loads(lines[-1])[0])

    yield now, lambda: ask(world.inside.url)


@contextmanager
def reader_gone(world):
    """The turn ends by itself."""

    def now():
        path, told = begin(world.inside.url, model="endless", max_new_tokens=4000), Told()
        with httpx2.stream("GET", world.inside.url + path, timeout=60) as stream:
            for line in stream.iter_lines():
                if line.startswith('data: ["') and len(line) > 12:
                    told.text = line
                    break
        until(lambda: not turn.running())
        return told

    yield now, lambda: ask(world.inside.url)
