"""The line for passes on a device: who is next, who leaves, and what a forked process finds."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from parley.engines.transformers.pass_line import PassLine, PassRequest, line_of
from parley.generation.streaming import Interrupted
from tests.conftest import until


def stand(line, order, name, is_chunk=False, stopped=lambda: False):
    """Waits in the line and notes the own name when the pass would run. The request."""
    request = PassRequest(name, is_chunk, stopped)
    with line.place(request) as is_next:
        if is_next:
            line.gather(request, lambda waiting: [])
            order.append(name)
            line.finish([request])
    return request


@pytest.fixture
def held():
    """A line whose pass runs until `free` is set, and the names of the passes that follow."""
    line, order, free, begun = PassLine(), [], threading.Event(), threading.Event()

    def hold():
        request = PassRequest("first", False, lambda: False)
        with line.place(request):
            begun.set()
            free.wait()
            line.finish([request])

    with ThreadPoolExecutor(1) as threads:
        threads.submit(hold)
        begun.wait()
        yield line, order, free
        free.set()


def follow(line, order, free, names, **more):
    """Lets these ask one after the other while the first pass runs, and gives their requests when all is over."""
    with ThreadPoolExecutor(len(names)) as threads:
        asked = []
        for name in names:
            asked.append(threads.submit(stand, line, order, name, name.startswith("chunk"), **more))
            until(lambda: len(line._waiting) == len(asked))
        free.set()
        return [each.result() for each in asked]


def test_passes_follow_the_order_of_asking(held):
    line, order, free = held
    follow(line, order, free, ["b", "a", "c"])
    assert order == ["b", "a", "c"]
    assert line.max_left_out == 2


def test_every_second_pass_is_a_chunk_while_chunks_wait(held):
    line, order, free = held
    follow(line, order, free, ["a", "b", "c", "chunk 1", "chunk 2"])
    assert order == ["chunk 1", "a", "chunk 2", "b", "c"]


def test_who_was_stopped_leaves_when_the_pass_that_runs_is_over(held):
    line, order, free = held
    left = follow(line, order, free, ["a", "b"], stopped=lambda: True)
    assert order == [] and all(isinstance(each.error, Interrupted) for each in left)


def test_a_pass_takes_those_along_that_it_chooses(held):
    line, order, free = held

    def lead():
        request = PassRequest("group", False, lambda: False)
        with line.place(request) as is_next:
            assert is_next
            taken = []
            line.gather(request, lambda waiting: taken.extend(waiting) or taken)
            for each in taken:
                each.output = "together"
            line.finish([request, *taken])

    with ThreadPoolExecutor(3) as threads:
        leader = threads.submit(lead)
        until(lambda: len(line._waiting) == 1)
        others = [threads.submit(stand, line, order, "group") for _ in range(2)]
        until(lambda: len(line._waiting) == 3)
        free.set()
        leader.result()
        assert [each.result().output for each in others] == ["together", "together"]
    assert order == []


def test_an_error_in_a_pass_gives_the_next_one_its_place(held):
    line, order, free = held

    def fail():
        with line.place(PassRequest("bad", False, lambda: False)):
            raise RuntimeError("the library failed")

    with ThreadPoolExecutor(1) as threads:
        failing = threads.submit(fail)
        until(lambda: len(line._waiting) == 1)
        follow_up = threading.Thread(target=stand, args=(line, order, "a"))
        follow_up.start()
        until(lambda: len(line._waiting) == 2)
        free.set()
        with pytest.raises(RuntimeError):
            failing.result()
        follow_up.join()
    assert order == ["a"]


def test_a_forked_process_finds_nobody_in_the_line():
    line = line_of("a device of this test")
    with line.turn(), line.place(PassRequest("first", False, lambda: False)):
        child = os.fork()
        if not child:
            stand(line_of("a device of this test"), order := [], "own")
            os._exit(0 if order == ["own"] else 1)
        assert os.waitpid(child, 0)[1] == 0
