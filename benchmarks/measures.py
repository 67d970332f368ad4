"""What is measured, each beside what it is compared with, in turn, so that a busy machine slows both."""

import functools
import math
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
import unittest.mock
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from gradio_client import Client
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer

from benchmarks import footprint, shapes, start
from benchmarks.peers import LlamaCpp
from benchmarks.shapes import Shape
from parley import catalog, turn
from parley.budgie import exam
from parley.engines import decoding
from parley.engines.base import Engine, Usage
from parley.engines.local import LocalEngine
from parley.engines.prompt import fit
from parley.messages import Message
from parley.settings import Settings
from parley.strategies import STRATEGIES

NEW = 32  # tokens of an answer, where nothing else is said
LONG = 1024  # tokens of a prompt, likewise
STORY = "Tell me of the owl, the river and the lamp in the window. "


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` says how many times as fast ours is, what share of the memory it takes, or how many times as
    likely it makes a token.
    """

    name: str
    model: str
    unit: str
    ours: float
    baseline: float | None  # None: there is nothing to compare with
    ratio: float | None  # the median over the rounds, and the spread
    low: float | None = None
    high: float | None = None


RATIOS: dict[str, Callable[[float, float], float]] = {
    "s": lambda ours, theirs: theirs / ours,
    "nats/token": lambda ours, theirs: math.exp(ours - theirs),
}


def ratio(unit: str, ours: float, theirs: float) -> float:
    """See `Row`."""
    return RATIOS.get(unit, lambda ours, theirs: ours / theirs)(ours, theirs)


def row(name: str, model: str, unit: str, pairs: Sequence[tuple[float, float]]) -> Row:
    """A figure from what was measured in each round: ours, and what it is compared with."""
    ratios = [ratio(unit, *pair) for pair in pairs]
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    figures = (ours, theirs, statistics.median(ratios), min(ratios), max(ratios))
    return Row(name, model, unit, *(float(f"{figure:.4g}") for figure in figures))


def in_turn(rounds: int, *timed: Callable[[int], float]) -> Sequence[tuple[float, ...]]:
    """Each for the numbers from 1 to `rounds`, after a first time that only warms up."""
    return [tuple(each(number) for each in timed) for number in range(rounds + 1)][1:]


class Timed(TextIteratorStreamer):
    """The stock streamer, which notes when each token came."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """As the stock streamer's; the first call brings the prompt."""
        self.times.append(time.perf_counter())
        super().put(value)


def stock(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor, new: int) -> Usage:
    """What a usual Space does: `generate` in a thread with the stock streamer, the whole history read each time."""
    streamer = Timed(tokenizer)
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": new, "do_sample": False, "streamer": streamer}
    thread = threading.Thread(target=model.generate, args=(ids,), kwargs=given)
    began = time.perf_counter()
    thread.start()
    for _ in streamer:
        pass
    thread.join()
    return Usage(ids.shape[1], new, streamer.times[1] - began, streamer.times[-1] - began)


def answer(
    engine: Engine,
    messages: Sequence[Message],
    new: int,
    session: str = "",
    draft: LocalEngine | None = None,
    **values: object,
) -> Usage:
    """What an answer of ours cost."""
    settings = Settings.check({"strategy": "greedy", "max_new_tokens": new} | values)
    *_, last = engine.stream(messages, settings, threading.Event(), draft, session)
    return last.usage


def history(engine: LocalEngine, tokens: int) -> list[Message]:
    """A conversation of at least so many tokens, in turns of about fifty."""
    turns: list[Message] = []
    while fit(engine.loaded, [*turns, Message("user", STORY)], shapes.GREEDY).length < tokens:
        turns += [Message("user", STORY), Message("assistant", f"{len(turns)}: {STORY}")]
    return turns


def speed(shape: Shape, peers: Mapping[str, LlamaCpp], rounds: int) -> Iterator[Row]:
    """Decoding after a short prompt, and reading a long one."""
    for kind, prompt, new in (("decode", 0, NEW), ("prefill", LONG, 2)):
        messages = [*history(shape.torch, prompt), Message("user", STORY)]
        ids = fit(shape.torch.loaded, messages, shapes.GREEDY).ids
        unit = "tokens/s" if kind == "decode" else "s"

        def figure(usage: Usage) -> float:
            return usage.tokens_per_second if kind == "decode" else usage.first_piece  # noqa: B023  (called at once)

        ways: dict[str, Callable[[], Usage]] = {
            "": functools.partial(answer, shape.engine, messages, new),
            "plain": functools.partial(stock, shape.floats.loaded.model, shape.torch.loaded.tokenizer, ids, new),
            **{name: functools.partial(peer.answer, ids[0].tolist(), new) for name, peer in peers.items()},
        }
        if shape.engine is not shape.torch:
            ways["torch"] = functools.partial(answer, shape.torch, messages, new)
        timed = [lambda _, way=way: figure(way()) for way in ways.values()]
        taken = [dict(zip(ways, each, strict=True)) for each in in_turn(rounds, *timed)]
        for name in [name for name in ways if name not in ("", "torch")]:
            yield row(f"{kind}_vs_{name}", shape.name, unit, [(each[""], each[name]) for each in taken])
        if "torch" in ways:
            yield row(f"{kind}_torch_vs_plain", shape.name, unit, [(each["torch"], each["plain"]) for each in taken])


def strategies(shape: Shape, rounds: int, new: int = 12) -> Row:
    """The torch engine by every strategy, beside the same strategy in floats: the median and, as its spread, the
    strategies that gain least and most.
    """
    helper = LocalEngine(shapes.budgie())
    pairs = []
    for name in STRATEGIES:
        given = {"strategy": name, "seed": 1, "force_words": "owl", "exit_layer": 8}
        draft = helper if STRATEGIES[name].drafts else None

        def each(engine: LocalEngine, _: int) -> float:
            usage = answer(engine, [Message("user", STORY)], new, draft=draft, **given)  # noqa: B023  (called at once)
            return usage.new_tokens / usage.seconds

        taken = in_turn(rounds, functools.partial(each, shape.torch), functools.partial(each, shape.floats))
        pairs.append(tuple(statistics.median(side) for side in zip(*taken, strict=True)))
        print(f"{shape.name}, {name}: {pairs[-1][0] / pairs[-1][1]:.2f} times the floats", flush=True)
    return row("strategies_torch_vs_plain", shape.name, "tokens/s", pairs)


def prefix(shape: Shape, rounds: int, tokens: int) -> Row:
    """The first token after a long history, from the session's cache and without one."""
    talk = history(shape.torch, tokens)

    def first(session: str, number: int) -> float:
        question = f"{number} more owls came by, and one of them spoke. What did it say?"
        return answer(shape.engine, [*talk, Message("user", question)], 1, session).first_piece

    first("visitor", -1)
    pairs = in_turn(rounds, functools.partial(first, "visitor"), functools.partial(first, ""))
    return row(f"prefix_ttft_{tokens}", shape.name, "s", pairs)


def by_turn(engine: Engine, turns: int) -> list[tuple[int, float, float]]:
    """A growing talk: tokens of the prompt, and seconds to the first token with the cache and without."""
    talk: list[Message] = []
    points = []
    for number in range(turns):
        talk.append(Message("user", f"Part {number}. {STORY * 20}"))
        cached, whole = (answer(engine, talk, 1, session) for session in ("reader", ""))
        points.append((cached.prompt_tokens, cached.first_piece, whole.first_piece))
        talk.append(Message("assistant", f"{number}: {STORY}"))
    return points


def copying(shape: Shape, rounds: int) -> Row:
    """Saying what the prompt says, which is guessed, and the same after the prompt's words in another order."""
    words = shape.text.split()
    told, mixed = (f"Copy: {' '.join(order)}" for order in (words, words[::-1]))
    pairs = in_turn(
        rounds,
        lambda _: answer(shape.engine, [Message("user", told)], 96).tokens_per_second,
        lambda _: answer(shape.engine, [Message("user", mixed)], 96).tokens_per_second,
    )
    return row("lookup_copying", shape.name, "tokens/s", pairs)


def talking(rounds: int) -> Row:
    """Budgie's answers to some questions of its exam, where there is little to guess, with guesses and without."""
    engine = LocalEngine(shapes.budgie())
    asked = [Message("user", question.turns[0]) for question in exam.questions()[::9]]

    def seconds(_: int) -> float:
        began = time.perf_counter()
        for question in asked:
            answer(engine, [question], exam.LONGEST_ANSWER)
        return time.perf_counter() - began

    def without(number: int) -> float:
        with unittest.mock.patch.object(decoding, "EXACT", ()):  # the numbers in which it guesses
            return seconds(number)

    return row("lookup_talking", "Budgie", "s", in_turn(rounds, seconds, without))


def memory(shape: Shape) -> Row:
    """The weights; those of the real model, whose head is its embedding."""
    ours, floats = shape.torch.loaded.model, shape.floats.loaded.model
    assert ours.lm_head is not ours.get_input_embeddings()
    table = floats.get_input_embeddings().weight.nbytes
    mb = [shapes.bytes_of(each) / 1e6 for each in (ours, floats)]
    return row("memory_int8", shape.name, "MB", [(mb[0], mb[1] - table / 1e6)])


def both(shape: Shape) -> Row:
    """What a process takes for a model, both engines included, and for the same in 32-bit floats."""
    mb = [footprint.measure(shape.folder, way) for way in ("engine", "floats")]
    return row("memory_process", shape.name, "MB", [(mb[0], mb[1])])


def api(model: str, rounds: int, new: int = 128) -> Row:
    """An answer over the API, from sending to its end, and a bare `generate` in the same process."""
    with tempfile.TemporaryDirectory() as folder:
        shapes.apart(shapes.save, model, Path(folder))
        # PyTorch answers both.
        os.environ |= {"MODEL_IDS": folder, "HF_HUB_OFFLINE": "1", "OPENVINO": "off"}
        import app  # the page is made from the environment
        from parley.ui import page

        url = app.demo.launch(**page.LAUNCH, prevent_thread_lock=True, quiet=True)[1]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:  # where clients are
            over_api = functools.partial(lambda new, n: elsewhere.submit(_over_api, url, new, n).result(), new)
            over_api(0)  # loads it, in a thread that ends
            with turn.POOL.lease(catalog.find(""), lambda _: None, threading.Event()) as engine:
                pairs = in_turn(rounds, over_api, functools.partial(_bare, engine.loaded, new))
        app.demo.close()
    return row("api_overhead", model, "s", pairs)


@functools.cache
def _client(url: str) -> Client:
    return Client(url, verbose=False)


def _over_api(url: str, new: int, number: int) -> float:
    """In the client's process."""
    asked = {"strategy": "greedy", "max_new_tokens": new, "messages": []}
    client = _client(url)
    began = time.perf_counter()
    for _ in client.submit(f"{number}. {STORY}", **asked, api_name="/chat"):
        pass
    return time.perf_counter() - began


def _bare(loaded: shapes.Loaded, new: int, number: int) -> float:
    ids = fit(loaded, [Message("user", f"{number}. {STORY}")], shapes.GREEDY).ids
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": new, "do_sample": False}
    thread = threading.Thread(target=loaded.model.generate, args=(ids,), kwargs=given)
    began = time.perf_counter()
    thread.start()
    thread.join()
    return time.perf_counter() - began


def starting(rounds: int) -> Row:
    """From `python app.py` until the page answers."""
    seconds = statistics.median(start.measure()[0] for _ in range(rounds))
    return Row("start", "Budgie", "s", float(f"{seconds:.3g}"), None, None)
