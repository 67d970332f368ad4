"""Visitors for ten minutes: python -m tests.soak [--minutes N].

The app runs in this process with two models, and sixteen visitors in another one. They ask over the API, greedy and
sampling, beams and drafts among them, and three of ten hang up. Each answer has to be that of its visitor alone, bit
for bit. At the end the app has to hold no more memory, threads and open files than before. The exit code is 1 where a
bound is broken.
"""

import argparse
import ctypes
import gc
import itertools
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from tests.api.visitor import is_at_rest, visit
from tests.conftest import Inside, save_endless, until
from tests.standins.hub import save_tiny_model

VISITORS = 16
KINDS = 40  # questions, each of which has its own nonce
MODELS = ("budgie", "endless")
BLOCKS = 400  # of keys and values for each model, which are soon full of cached prefixes
THREADS_TO_SPARE, FILES_TO_SPARE = 40, 16  # those of the web server that wait for more work
BYTES_A_REQUEST = 2048  # of memory, in the second half
NOISE = 4e6  # bytes by which the memory of a process goes up and down
QUIET = 60  # seconds in which everything has to end


@dataclass(frozen=True)
class Held:
    memory: int  # bytes
    threads: int
    files: int


class Visitors:
    """In their own process: they know what each of them is told when nobody else is there."""

    def __init__(self, url):
        self._url = url
        self._asked = list(itertools.product(MODELS, range(KINDS)))
        self._next, self._counting = itertools.count(), threading.Lock()
        self._counts = Counter()
        with self._client() as http:
            self._alone = {each: visit(http, each[1], leaves=False, model=each[0]) for each in self._asked}

    def visit_for(self, seconds):
        """Counts what came of the requests of so long a time."""
        self._counts.clear()
        deadline = time.monotonic() + seconds

        def visits(http):
            while time.monotonic() < deadline:
                self._visit(http)

        with self._client() as http, ThreadPoolExecutor(VISITORS) as visitors:
            for each in [visitors.submit(visits, http) for _ in range(VISITORS)]:
                each.result()
        return self._counts

    def _client(self):
        return httpx2.Client(base_url=self._url, timeout=250, limits=httpx2.Limits())

    def _visit(self, http):
        with self._counting:
            number = next(self._next)
        model, kind = self._asked[7 * number % len(self._asked)]
        try:
            said = visit(http, kind, leaves=number % 10 < 3, model=model)
        except (AssertionError, httpx2.HTTPError, ValueError) as error:
            what = "errors"
            print(f"{model}, question {kind}: {error!r}", file=sys.stderr)
        else:
            alone = self._alone[model, kind]
            what = "hung up" if said is None else "whole answers" if said == alone else "wrong answers"
            if what == "wrong answers":
                print(f"{model}, question {kind}: {said!r}, and alone {alone!r}", file=sys.stderr)
        with self._counting:
            self._counts[what] += 1


_visitors = []  # in their process: the one `Visitors`


def _come(url):
    _visitors.append(Visitors(url))


def _visit_for(seconds):
    return _visitors[0].visit_for(seconds)


class Soak:
    """The app, and what it holds. `broken` has a sentence for each bound that is not kept."""

    def __init__(self, inside, elsewhere):
        self._inside, self._elsewhere, self._process = inside, elsewhere, psutil.Process()
        self.broken = []

    def run(self, seconds):
        self._there(_come, self._inside.url)
        base = self._held()
        counts = self._there(_visit_for, seconds / 2)
        before = self._held()
        second_half = self._there(_visit_for, seconds / 2)
        after = self._held()
        requests = second_half.total()
        growth = (after.memory - before.memory) / requests
        counts += second_half
        print(f"{counts.total()} requests: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}.")
        print(f"Memory grew by {growth:,.0f} bytes for each of the {requests} requests of the second half.")
        for what in ("threads", "files"):
            print(f"There were {getattr(base, what)} {what} before, and are {getattr(after, what)}.")
        if growth > BYTES_A_REQUEST + NOISE / requests:
            self.broken.append(f"Memory may grow by {BYTES_A_REQUEST} bytes a request at most: see what keeps it.")
        if after.threads > base.threads + THREADS_TO_SPARE or after.files > base.files + FILES_TO_SPARE:
            self.broken.append("Threads or files are not back to what they were: see who waits.")
        for what in ("errors", "wrong answers"):
            if counts[what]:
                self.broken.append(f"There were {counts[what]} {what}: see above what was said.")

    def _there(self, work, *given):
        return self._elsewhere.submit(work, *given).result()

    def _held(self):
        """What the app holds as soon as nobody is answered any more."""
        deadline = time.monotonic() + QUIET
        until(lambda: is_at_rest(self._inside) or time.monotonic() > deadline)
        if not is_at_rest(self._inside):
            self.broken.append(f"{QUIET} seconds after the last request turns still run: see which.")
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc, which keeps what was freed
            trim(0)
        return Held(self._process.memory_full_info().uss, threading.active_count(), self._process.num_fds())


@contextmanager
def written_blocks(engine):
    """Few blocks, all of them written: what cached prefixes take soon stops growing, and does not count as growth."""
    pool = engine.loaded.model.decoder.pool
    for tensor in pool._blocks:
        tensor[:BLOCKS] = 0
    while pool.reclaim():  # nobody keeps a prefix
        pass
    held = [pool.allocate() for _ in range(pool.num_free)]
    few, held = held[:BLOCKS], held[BLOCKS:]  # the lowest are given out first
    pool.release(few)
    try:
        yield
    finally:
        pool.release(held)


def soak(minutes, inside):
    """Says what was seen; returns the sentences about bounds that are not kept."""
    with ExitStack() as stack:
        for name in MODELS:
            stack.enter_context(written_blocks(inside.engine(name)))
        elsewhere = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        made = Soak(inside, elsewhere)
        made.run(60 * minutes)
    return made.broken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        stateful = save_tiny_model(Path(folder) / "stateful", "Mamba", state_size=4)
        inside = Inside(save_endless(Path(folder) / "endless"), stateful)
        broken = soak(minutes, inside)
        inside.close()
    print("\n".join(broken) or "All bounds are kept.")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
