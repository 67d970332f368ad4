"""Many turns of PyTorch's model at once: in float32 each gets the tokens of the turn alone, by every strategy."""

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from parley.engines.transformers import engine as engine_module
from parley.engines.transformers.pass_line import line_of
from parley.messages import Message
from parley.strategies import STRATEGIES
from tests.conftest import draft, engine, until
from tests.engines.company import LONG, Company, values_of
from tests.engines.openvino.asking import answer
from tests.strategies.loops import SAMPLING


@functools.cache
def own():
    """A Budgie of these tests."""
    return engine(ENGINE="transformers")


company = Company(own, helper=lambda: draft("transformers"))
ask, together = company.ask, company.together


def alone(turns):
    """Their answers one after the other; nothing is kept of them."""
    answers = [ask(turn) for turn in turns]
    own().prefix_cache.clear()
    return answers


class Frozen:
    """While it is entered, nobody writes to these configs."""

    def __init__(self, *configs):
        self.configs, self.classes, self.written = configs, [type(config) for config in configs], []

    def __enter__(self):
        for config in self.configs:
            own = type(config)
            config.__class__ = type(own.__name__, (own,), {"__setattr__": self._noting, "__module__": own.__module__})
        return self

    @property
    def _noting(self):
        def note(config, name, value):
            if any(config is each for each in self.configs):
                self.written.append(name)
            object.__setattr__(config, name, value)

        return note

    def __exit__(self, *_):
        for config, own in zip(self.configs, self.classes, strict=True):
            object.__setattr__(config, "__class__", own)


def test_every_strategy_answers_in_company_as_it_does_alone():
    turns = list(enumerate(map(values_of, STRATEGIES)))
    line = own().scheduler.line
    before = line.num_passes
    answers = alone(turns)
    passes, before = line.num_passes - before, line.num_passes
    assert together(turns) == answers
    assert line.num_passes - before < passes * 0.8
    assert own().scheduler.num_shared > 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_eight_turns_of_one_strategy_answer_as_alone(strategy):
    turns = [(number, values_of(strategy, seed=number)) for number in range(8)]
    answers = alone(turns)
    assert together(turns) == answers
    assert together(turns) == answers  # with a prefix that is kept


def test_a_kept_prefix_in_company():
    turns = [(number, values_of("greedy")) for number in range(4)]
    answers = alone(turns)
    together(turns)
    assert all(own().prefix_cache.session(f"{number}") for number, _ in turns)
    assert together(turns) == answers


def test_guidance_in_company():
    turns = [(number, values_of("sampling", seed=number) | {"guidance_scale": 1.5}) for number in range(3)]
    answers = alone(turns)
    assert together(turns) == answers


def test_early_exit_beside_greedy_and_another_layer():
    names = ["early_exit", "greedy", "early_exit", "greedy"]
    turns = [(number, values_of(name) | {"exit_layer": 3 + number}) for number, name in enumerate(names)]
    answers = alone(turns)
    assert together(turns) == answers


def test_no_turn_writes_to_a_config_that_others_read():
    models = own().loaded.model, draft("transformers").loaded.model
    with Frozen(*(config for model in models for config in (model.config, model.generation_config))) as frozen:
        together(list(enumerate(map(values_of, STRATEGIES))))
    assert frozen.written == []


@pytest.mark.parametrize("strategy", SAMPLING)
def test_a_seed_belongs_to_its_turn(strategy):
    """Nobody draws from the global generator, which a turn beside it would disturb."""
    state = torch.random.get_rng_state()
    turns = [(number, values_of(name, seed=3)) for number, name in enumerate([strategy, "sampling", "beam_sampling"])]
    answers = alone(turns)
    assert together(turns) == answers
    assert torch.equal(torch.random.get_rng_state(), state)


class Forwards:
    """Calls `happens` with the arguments of each forward pass of the own model, before it is computed."""

    def __init__(self, happens):
        self.happens = happens

    def __enter__(self):
        scheduler = own().scheduler
        self.forward = scheduler._forward

        @functools.wraps(self.forward)
        def watched(**arguments):
            self.happens(arguments)
            return self.forward(**arguments)

        scheduler._forward = watched
        return self

    def __exit__(self, *_):
        own().scheduler._forward = self.forward


@pytest.fixture
def endless(monkeypatch):
    """The own Budgie never ends an answer by itself."""
    monkeypatch.setattr(own().loaded.model.generation_config, "eos_token_id", None)


def test_who_decodes_beside_a_long_prompt_waits_for_two_passes_at_most(endless):
    """The pass that runs when it asks, and a chunk of the prompt. The prompt gets its share of the passes."""
    scheduler, cancel, sizes = own().scheduler, threading.Event(), []
    prompt = [Message("user", LONG * 40)]
    with ThreadPoolExecutor(16) as threads, Forwards(lambda given: sizes.append(given["input_ids"].shape)):
        values = {"strategy": "sampling", "max_new_tokens": 400, "top_p": 1.0, "top_k": 0}
        turns = [
            threads.submit(answer, own(), [Message("user", "Go on.")], cancel, **values, seed=number)
            for number in range(16)
        ]
        until(lambda: (16, 1) in sizes)
        del sizes[:]
        scheduler.line.max_left_out = 0
        answer(own(), prompt, max_new_tokens=1)
        most = scheduler.line.max_left_out
        cancel.set()
        assert all(turn.result().finish == "stopped" for turn in turns)
    tokens = len(own().loaded.tokenizer.encode(LONG * 40))
    chunks = [shape for shape in sizes if shape[1] > 1 and shape[0] == 1]
    assert len(chunks) >= tokens // scheduler.max_rows
    assert all(rows * columns <= scheduler.max_rows for rows, columns in sizes)
    assert len(sizes) > 1.5 * len(chunks)
    assert most <= 1


def test_a_stop_touches_no_other_turn(endless):
    turns = [(number, values_of("greedy") | {"max_new_tokens": 24}) for number in range(4)]
    answers = alone(turns)
    cancel, shared = threading.Event(), []

    def stop_it(given):
        shared.append(len(given["input_ids"]))
        if shared.count(5) == 3:
            cancel.set()

    with Forwards(stop_it), ThreadPoolExecutor(1) as threads:
        other = threads.submit(answer, own(), [Message("user", LONG)], cancel, max_new_tokens=400)
        until(lambda: len(shared) > 4)
        assert together(turns) == answers
        assert other.result().finish == "stopped"


def test_a_shared_pass_that_all_its_turns_gave_up_ends_in_a_layer(endless):
    cancel, ran = threading.Event(), []
    layers = own().loaded.model.model.layers

    def note(module, given, output, index):
        if len(output) == 3:  # a pass that all three share
            cancel.set()
            ran.append(index)

    hooks = [layer.register_forward_hook(functools.partial(note, index=i)) for i, layer in enumerate(layers)]
    with ThreadPoolExecutor(3) as threads:
        ask_one = functools.partial(answer, own(), [Message("user", LONG)], cancel, max_new_tokens=400)
        made = [turn.result() for turn in [threads.submit(ask_one) for _ in range(3)]]
    for hook in hooks:
        hook.remove()
    assert ran == [0]
    assert all(each.finish == "stopped" for each in made)


def test_a_fault_ends_the_turn_whose_tokens_cause_it():
    turns = [(number, values_of("greedy") | {"max_new_tokens": 24}) for number in range(4)]
    answers = alone(turns)
    failed = []

    def fail_for_one(given):
        if given["past_key_values"].get_seq_length() + given["input_ids"].shape[1] > 450:
            failed.append(len(given["input_ids"]))
            raise RuntimeError("the library failed")

    with Forwards(fail_for_one), ThreadPoolExecutor(1) as threads:
        other = threads.submit(answer, own(), [Message("user", LONG * 34)], max_new_tokens=60)
        assert together(turns) == answers
        with pytest.raises(RuntimeError, match="the library failed"):
            other.result()
    assert failed


def test_a_fault_in_a_layer_of_a_shared_pass_leaves_the_caches_as_they_were():
    turns = [(number, values_of("greedy") | {"max_new_tokens": 24}) for number in range(4)]
    answers = alone(turns)
    faults = []

    def fail(module, given):
        if len(given[0]) > 1 and len(faults) < 3:
            faults.append(len(given[0]))
            raise RuntimeError("the library failed")

    hook = own().loaded.model.model.layers[2].register_forward_pre_hook(fail)
    try:
        assert together(turns) == answers
    finally:
        hook.remove()
    assert len(faults) == 3


def test_the_number_of_turns_follows_from_the_memory(monkeypatch):
    assert own().max_running == engine_module.MAX_RUNNING
    for free, expected in ((0, 1), (10**7, 1), (10**8, 10)):
        monkeypatch.setattr(engine_module.hardware, "free_memory", lambda free=free: free)
        assert abs(type(own())(own().loaded).max_running - expected) <= expected


def test_nobody_stands_in_the_line_when_all_is_over():
    line = line_of("cpu")
    together([(number, values_of("greedy")) for number in range(3)])
    until(lambda: not any(thread.name == "generate" for thread in threading.enumerate()))
    assert (line._waiting, line._turns, line._is_busy, line._choosing) == ([], set(), False, {})
