"""What a visitor of the page gets: the start of the app, and Budgie's speed in the engine and over the API."""

import contextlib
import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

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


def over_api(models: Models, rounds: int) -> Iterator[Row]:
    """The same over the API, from sending to the end, for a client in another process; beside the engine alone."""
    with contextlib.ExitStack() as stack:
        url, engine = stack.enter_context(_served())
        stack.enter_context(endless(engine.loaded))
        stack.enter_context(without_drafts())
        elsewhere = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        taken = in_turn(
            rounds,
            {
                "api": lambda: elsewhere.submit(_asked, url).result(),
                "engine": lambda: _in_engine(engine),
            },
        )
    pairs = [(NEW / each["api"], each["engine"]) for each in taken]
    yield compared("budgie_api", models.budgie.name, "tokens/s", pairs)


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


def _asked(url: str) -> float:
    """In the client's process: seconds from sending to the end of an answer."""
    asked = {"strategy": "greedy", "max_new_tokens": NEW, "messages": []}
    client = _client(url)
    began = time.perf_counter()
    for _ in client.submit(STORY, **asked, api_name="/chat"):
        pass
    return time.perf_counter() - began


def starting(models: Models, rounds: int) -> Iterator[Row]:
    """From `python app.py` until the page answers."""
    yield alone("start", models.budgie.name, "s", [start.measure()[0] for _ in range(rounds)])
