"""Many chats at once over HTTP: the mix of lengths beside llama.cpp, beside `transformers serve`, beside one after the
other, and beside what the passes of the model allow.
"""

import contextlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from benchmarks import peers, share_gpt, transformers_serve, visitors
from benchmarks.measures import Row, alone, row
from benchmarks.models import SMOLLM2, Model, Models
from benchmarks.served import Served
from benchmarks.share_gpt import Conversation, Workload
from benchmarks.visitors import Asks, ChatCompletions, Parley, Played
from parley.engines.openvino.decoder import MAX_ROWS

# How many chats, and how many conversations they have together; fewer for the model that is only a shape.
CHATS = {1: 6, 4: 24, 8: 32, 16: 48, 32: 64}
SHAPE_CHATS = {4: 8, 16: 16}
SLOW = 8  # chats that those are asked by at most which take several times as long
ROUNDS = 1  # at most; one takes about ten minutes
WARM_UP = 99  # the seed of conversations that are not measured
DECODING = (4, 8, 16)  # chats whose decoding alone is measured
NEXT_TURNS = 8  # chats whose next turns are measured
PROMPT, NEW = 64, 64  # tokens, where decoding alone is measured; the prompt has some more of the chat template
GENERATION = {"greedy": False, "sampling": True}


# Who answers; the figures beside a peer end with its name.
OURS, LLAMA_CPP, TRANSFORMERS, ONE_BY_ONE = "parley", "llamacpp_q8", "transformers", "one_by_one"
PEERS = {LLAMA_CPP: "llama.cpp", TRANSFORMERS: "transformers serve", ONE_BY_ONE: "one after the other"}


def named(model: str, chats: int) -> str:
    """A model, and by how many chats it is asked."""
    return f"{model}, {chats} {'chat' if chats == 1 else 'chats'}"


TARGETS = tuple(named(SMOLLM2, chats) for chats in (4, 8, 16))  # what the goals are about


def many(models: Models, rounds: int, shapes: bool) -> Iterator[Row]:
    """All figures, for the real model and the one that is only a shape."""
    yield from _measure(models.smollm2, min(rounds, ROUNDS), CHATS, True)
    if shapes:
        yield from _measure(models.qwen3, 1, SHAPE_CHATS, False)


@dataclass(frozen=True)
class _Peers:
    """All that are compared, with one model, and the visitors of those that have a server."""

    parley: Served
    elsewhere: ProcessPoolExecutor
    llama_cpp: peers.LlamaCppMany | None
    serve: tuple[str, str] | None  # its address, and the model

    def play(self, way: str, workload: Workload, chats: int) -> Played:
        """What these conversations take by `way`: the peer, and how the next token is chosen."""
        self.parley.settle()
        peer, _, generation = way.partition(" ")
        sampling = GENERATION[generation]
        if peer == LLAMA_CPP:
            assert self.llama_cpp
            return self.llama_cpp.play(workload, chats, sampling)
        if peer == TRANSFORMERS:
            assert self.serve
            url, model = self.serve
            return self._visit(url, ChatCompletions(model), workload, chats, chats)
        asks = Parley(self.parley.name, sampling)
        return self._visit(self.parley.url, asks, workload, chats, 1 if peer == ONE_BY_ONE else chats)

    def _visit(self, url: str, asks: Asks, workload: Workload, chats: int, at_once: int) -> Played:
        return self.elsewhere.submit(visitors.play, url, asks, workload, chats, at_once).result()

    def warm_up(self, workload: Workload, chats: int) -> None:
        """The first answers take longer: much is imported, and memory is taken from the machine."""
        self.play(f"{OURS} sampling", workload, chats)
        if self.serve:
            first = Workload(workload.conversations[:1], workload.read[:1])
            self.play(f"{TRANSFORMERS} greedy", first, 1)  # which loads the model

    def ways(self, chats: int, number: int) -> list[str]:
        """Those of a round, in their order: what takes long is left to the first, or to the numbers of the goals."""
        ways = [f"{OURS} greedy", f"{OURS} sampling"]
        if self.llama_cpp:
            ways += [f"{LLAMA_CPP} greedy", *([f"{LLAMA_CPP} sampling"] if chats in DECODING else [])]
        if number == 0:
            ways += [f"{ONE_BY_ONE} greedy"] if chats <= SLOW else []
            ways += [f"{TRANSFORMERS} greedy"] if self.serve and chats <= SLOW else []
        return ways


@contextlib.contextmanager
def _started(model: Model, with_serve: bool) -> Iterator[_Peers]:
    """Everything that is compared, ready to be asked."""
    folder = Path(model.row.id)
    with contextlib.ExitStack() as stack:
        parley = Served(folder, "measured")
        stack.callback(parley.close)
        elsewhere = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        serve = None
        if with_serve and not transformers_serve.missing():
            server = transformers_serve.TransformersServe()
            stack.callback(server.close)
            made = transformers_serve.endless(
                folder, Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
            )
            serve = server.url, str(made)
        yield _Peers(parley, elsewhere, model.llama_many, serve)


def _measure(model: Model, rounds: int, numbers: Mapping[int, int], with_serve: bool) -> Iterator[Row]:
    """`numbers`: of chats, and how many conversations they have."""
    tokenizer = AutoTokenizer.from_pretrained(model.row.id)
    with _started(model, with_serve) as started:
        started.warm_up(share_gpt.workload(tokenizer, max(numbers), seed=WARM_UP), max(numbers))
        for chats, count in numbers.items():
            # Each round has conversations that nobody has read before.
            seeds = [100 * chats + number for number in range(rounds)]
            workloads = [share_gpt.workload(tokenizer, count, seed) for seed in seeds]
            yield from _mix(started, workloads, named(model.name, chats), chats)
        for chats in [n for n in DECODING if n in numbers]:
            alike = [share_gpt.alike(tokenizer, chats, (PROMPT, NEW), seed) for seed in range(rounds)]
            yield from _decoding(started, alike, named(model.name, chats), chats)


def _mix(started: _Peers, workloads: Sequence[Workload], label: str, chats: int) -> Iterator[Row]:
    """The whole mix, by all in turn."""
    played: dict[str, list[Played]] = {}
    bounds, in_model = list[float](), {generation: list[float]() for generation in GENERATION}
    for number, workload in enumerate(workloads):
        for way in started.ways(chats, number):
            started.parley.settle()  # what is read again after the last way is no part of this one
            before = started.parley.pass_seconds()
            taken = started.play(way, workload, chats)
            played.setdefault(way, []).append(taken)
            if way.startswith(OURS):
                in_model[way.split()[1]].append(100 * (started.parley.pass_seconds() - before) / taken.seconds)
        started.parley.settle()
        times = started.parley.pass_times(*contexts(workload))
        seconds = bound(workload, chats, lambda rows, chunk: between(times, rows, chunk))  # noqa: B023  (called at once)
        bounds.append(workload.new_tokens / seconds)

    def rates(way: str) -> list[float]:
        return [each.rate for each in played[way]]

    for generation in GENERATION:
        ours = rates(f"{OURS} {generation}")
        for peer in PEERS:
            if (way := f"{peer} {generation}") in played:
                yield row(f"many_{generation}_vs_{peer}", label, "tokens/s", list(zip(ours, rates(way), strict=False)))
        yield row(f"many_{generation}_vs_bound", label, "tokens/s", list(zip(ours, bounds, strict=True)))
        yield alone(f"many_{generation}_in_model", label, "% of the time", in_model[generation])
    waits = {"many_first_token": "first", "many_first_token_p95": "first_p95"}
    waits |= {"many_next_turn": "next_first"} if chats == NEXT_TURNS else {}
    for name, wait in waits.items():
        waited, theirs = (
            [getattr(each, wait) for each in played.get(f"{peer} greedy", ())] for peer in (OURS, LLAMA_CPP)
        )
        yield (
            row(name, label, "s", list(zip(waited, theirs, strict=True)))
            if theirs
            else alone(name, label, "s", waited)
        )


def contexts(workload: Workload) -> tuple[int, int]:
    """After how many tokens of its conversation a token comes on average: a decoded one, and one that is read."""
    decoded, read = list[int](), list[int]()
    for questions, prompts in zip(workload.conversations, workload.read, strict=True):
        length = again = 0
        for question, ids in zip(questions, prompts, strict=True):
            read += range(length - again, length + len(ids))
            length += len(ids)
            decoded += range(length, length + question.new)
            again = question.new
            length += again
    return round(float(np.mean(decoded))), round(float(np.mean(read)))


def between(times: Mapping[tuple[int, int], float], rows: int, chunk: int) -> float:
    """Seconds of a pass of so many single rows and tokens of prompts, between those that were timed."""
    known = sorted({n for n, _ in times})

    def of(n: int) -> float:
        chunks = sorted(c for m, c in times if m == n)
        return float(np.interp(chunk, chunks, [times[n, c] for c in chunks]))

    return float(np.interp(rows, known, [of(n) for n in known]))


def bound(workload: Workload, chats: int, seconds_of: Callable[[int, int], float]) -> float:
    """Seconds of the passes alone, where nothing else takes time: each has a token of every chat that decodes, and
    tokens of prompts in the rows that are left. After an answer it is read again with the next question.

    `seconds_of` takes how many of its rows are single ones, and how many are tokens of prompts.
    """
    waiting = list(zip(workload.conversations, workload.read, strict=True))
    running: list[_Chat] = []
    seconds = 0.0
    while waiting or running:
        while waiting and len(running) < chats:
            running.append(_Chat(*waiting.pop(0)))
        decoding = [each for each in running if not each.unread]
        room = left = MAX_ROWS - len(decoding)
        for each in decoding:
            each.decode()
        for each in running:
            if each not in decoding:
                left -= each.prefill(left)
        seconds += seconds_of(len(decoding), room - left)
        running = [each for each in running if each.questions]
    return seconds


class _Chat:
    """One conversation in `bound`."""

    def __init__(self, conversation: Conversation, read: Sequence[list[int]]) -> None:
        self.questions, self._read = list(conversation), [len(ids) for ids in read]
        self.unread, self._left = self._read.pop(0), self.questions[0].new

    def prefill(self, rows: int) -> int:
        """Reads on in at most so many rows; the last of a prompt brings the first token. Returns the rows it took."""
        taken = min(rows, self.unread)
        self.unread -= taken
        if taken and not self.unread:
            self.decode()
        return taken

    def decode(self) -> None:
        """Takes one more token; after the last one comes the next question."""
        self._left -= 1
        if self._left == 0:
            answered = self.questions.pop(0).new
            if self.questions:
                self.unread, self._left = answered + self._read.pop(0), self.questions[0].new


def _decoding(started: _Peers, workloads: Sequence[Workload], label: str, chats: int) -> Iterator[Row]:
    """Decoding alone, beside passes of as many rows at the same lengths, and how much of its time is in the model."""
    rates = {generation: list[tuple[float, float]]() for generation in GENERATION}
    shares = {generation: list[float]() for generation in GENERATION}
    events = {generation: list[float]() for generation in GENERATION}
    for workload in workloads:
        for generation in GENERATION:
            started.parley.count_tokens(NEW)
            started.play(f"{OURS} {generation}", workload, chats)
            seconds, in_passes, on_events, tokens = started.parley.decoding()
            events[generation].append(100 * on_events / seconds / (os.cpu_count() or 1))
            each_pass = started.parley.pass_time(chats, PROMPT + PROMPT // 2, NEW)
            rates[generation].append((tokens / seconds, chats / each_pass))
            shares[generation].append(100 * in_passes / seconds)
    for generation in GENERATION:
        yield row(f"many_decode_{generation}_vs_passes", label, "tokens/s", rates[generation])
        yield alone(f"many_decode_{generation}_in_model", label, "% of the time", shares[generation])
        yield alone(f"many_{generation}_events", label, "% of all cores", events[generation])


def by_chats(rows: Collection[Row]) -> dict[str, list[tuple[int, float]]]:
    """For the chart: tokens per second by the number of chats, of Parley and of each peer; greedy, the real model."""
    lines: dict[str, dict[int, float]] = {"Parley": {}, **{name: {} for name in PEERS.values()}}
    models = {named(SMOLLM2, chats): chats for chats in CHATS}
    for each in rows:
        peer = PEERS.get(each.name.removeprefix("many_greedy_vs_"))
        if peer and each.model in models and each.baseline is not None:
            lines["Parley"][models[each.model]] = each.ours
            lines[peer][models[each.model]] = each.baseline
    return {name: sorted(line.items()) for name, line in lines.items() if line}
