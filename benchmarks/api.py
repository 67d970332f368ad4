"""What a visitor of the page gets: the start of the app, and Budgie's speed in the engine and over the API."""

import contextlib
import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import httpx2
from gradio_client import Client

from benchmarks import start
from benchmarks.measures import (
    STORY,
    Row,
    alone,
    ask,
    cost,
    decode_speed,
    endless,
    in_turn,
    question,
    stock,
    without_drafts,
)
from benchmarks.measures import row as compared
from benchmarks.models import Models
from parley.engines.local_engine import LocalEngine
from parley.models import registry
from parley.serving import turn

NEW = 200  # tokens of an answer
ASKED: dict[str, Any] = {"strategy": "greedy", "max_new_tokens": NEW}
TIMEOUT = 300  # seconds for which a client waits for the next piece


def budgie(models: Models, rounds: int) -> Iterator[Row]:
    """Decoding by greedy search without drafts in the engine, beside plain `generate`."""
    model = models.budgie
    with endless(model.engine.loaded, model.plain), without_drafts():
        taken = in_turn(
            rounds,
            {
                "ours": lambda: _in_engine(model.engine),
                "plain": lambda: decode_speed(stock(model.plain, question(STORY), NEW)),
            },
        )
    pairs = [(each["ours"], each["plain"]) for each in taken]
    yield compared("budgie_engine", model.name, "tokens/s", pairs)


def over_api(models: Models, rounds: int, names: Collection[str]) -> Iterator[Row]:
    """The same by each of these ways in, from sending to the end, for a client elsewhere; beside the engine alone."""
    with contextlib.ExitStack() as stack:
        url, engine = stack.enter_context(_served())
        stack.enter_context(endless(engine.loaded))
        stack.enter_context(without_drafts())
        elsewhere = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        taken = in_turn(
            rounds,
            {
                **{name: functools.partial(_elsewhere, elsewhere, WAYS[name], url) for name in names},
                "engine": lambda: _in_engine(engine),
            },
        )
    for name in names:
        pairs = [(NEW / each[name], each["engine"]) for each in taken]
        yield compared(name, models.budgie.name, "tokens/s", pairs)


def _elsewhere(process: ProcessPoolExecutor, way: Callable[[str], None], url: str) -> float:
    """Seconds from sending to the end of an answer."""
    return process.submit(_timed, way, url).result()


def _in_engine(engine: LocalEngine) -> float:
    return decode_speed(cost(ask(engine, question(STORY), NEW)))


@contextlib.contextmanager
def _served() -> Iterator[tuple[str, LocalEngine]]:
    """The app in this process, and the engine that answers in it as Budgie."""
    os.environ |= {"MODEL_IDS": "budgie", "HF_HUB_OFFLINE": "1"}  # the page is made from them
    import app
    from parley.ui import page

    url = app.demo.launch(**page.LAUNCH, prevent_thread_lock=True, quiet=True)[1]
    try:
        with turn.POOL.lease(registry.find("budgie"), lambda _: None, threading.Event()) as engine:
            assert isinstance(engine, LocalEngine)
            yield url, engine
    finally:
        app.demo.close(verbose=False)


@functools.cache
def _client(url: str) -> Client:
    return Client(url, verbose=False)


def _timed(way: Callable[[str], None], url: str) -> float:
    """In the client's process, as what it calls."""
    _client(url)  # which asks for all endpoints at first
    began = time.perf_counter()
    way(url)
    return time.perf_counter() - began


def _chat(url: str) -> None:
    for _ in _client(url).submit(STORY, messages=[], **ASKED, api_name="/chat"):
        pass


def _generate(url: str) -> None:
    for _ in _client(url).submit(STORY, **ASKED, api_name="/generate"):
        pass


def _v1(url: str) -> None:
    body = {"model": "budgie", "messages": [{"role": "user", "content": STORY}], "stream": True, **ASKED}
    with httpx2.stream("POST", f"{url.rstrip('/')}/v1/chat/completions", json=body, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        for _ in answer.iter_lines():
            pass


# Each way in, by the name of its figure.
WAYS: dict[str, Callable[[str], None]] = {
    "budgie_api": _chat,
    "way_generate": _generate,
    "way_v1": _v1,
}


def starting(models: Models, rounds: int) -> Iterator[Row]:
    """From `python app.py` until the page answers."""
    yield alone("start", models.budgie.name, "s", [start.measure()[0] for _ in range(rounds)])
