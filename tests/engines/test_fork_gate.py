"""A process that is forked while an answer is computed can compute its own."""

import os
import threading

import torch

from parley.engines import fork_gate
from parley.engines.base import TurnRequest
from parley.messages import Message
from parley.settings import Settings

FORKS = 12


def request(**values):
    settings = Settings.check({"model": "budgie"} | values)
    return TurnRequest.of([Message("user", "Tell me a story about an owl.")], settings, threading.Event(), None, "")


def child_answers(engine):
    """Whether a process that is forked now can answer; one that cannot never ends, which the time limit shows."""
    child = os.fork()
    if not child:
        *_, last = engine.stream(request(strategy="sampling", max_new_tokens=3))
        os._exit(0 if last.usage.new_tokens == 3 else 1)
    return os.waitpid(child, 0)[1] == 0


def test_a_process_forked_in_the_middle_of_an_answer_computes_its_own(endless, torch_budgie):
    running = request(strategy="sampling", max_new_tokens=1000)
    deltas = endless.stream(running)
    next(deltas)
    assert all(child_answers(torch_budgie) for _ in range(FORKS))
    running.cancel.set()
    *_, last = deltas
    assert last.finish == "stopped"


def test_no_process_is_forked_while_torch_draws():
    """Torch holds a lock of its own meanwhile, which nothing frees in a child."""
    over, weights, square = threading.Event(), torch.ones(500_000), torch.ones(300, 300)

    def draw():
        with fork_gate.closed():
            while not over.is_set():
                torch.multinomial(weights, 1)
                with fork_gate.opened():
                    square @ square

    drawing = threading.Thread(target=draw, daemon=True)
    drawing.start()
    try:
        assert all(child_draws() for _ in range(FORKS))
    finally:
        over.set()
        drawing.join()


def child_draws():
    child = os.fork()
    if not child:
        torch.manual_seed(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def test_a_thread_that_has_not_closed_the_gate_opens_nothing():
    with fork_gate.opened():
        assert child_draws()
    with fork_gate.closed(), fork_gate.opened():
        assert child_draws()
