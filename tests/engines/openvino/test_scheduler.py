"""Many turns at once: each gets the answer that it would get alone, bit for bit, by every strategy."""

import functools
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("openvino")

import torch

from parley.engines.openvino import scheduler
from parley.engines.openvino.batch import Room
from parley.engines.openvino.decoder import PassInput
from parley.engines.openvino.paged_kv import BLOCK_SIZE, BlockTable, OutOfBlocks
from parley.engines.openvino.turns import TURNS
from parley.messages import Message
from parley.strategies import STRATEGIES
from tests.conftest import endless_engine, engine, until
from tests.engines.company import LONG, Company, values_of
from tests.engines.openvino.asking import answer, deltas
from tests.engines.openvino.passes import watched
from tests.strategies.loops import SAMPLING


@functools.cache
def own():
    """A Budgie of these tests."""
    return engine()


company = Company(own)
ask, together = company.ask, company.together


def forget():
    """Waits until no answer is read again in the background, and drops what is kept of the turns."""
    until(lambda: not any(each.name == "read-answer" for each in threading.enumerate()))
    own().prefix_cache.clear()


def test_every_strategy_answers_in_company_as_it_does_alone():
    turns = list(enumerate(map(values_of, STRATEGIES)))
    alone = [ask(turn) for turn in turns]
    forget()
    decoder = own().loaded.model.decoder
    before = decoder.num_passes
    assert together(turns) == alone
    in_company = decoder.num_passes - before
    forget()
    before = decoder.num_passes
    for turn in turns:
        ask(turn)
    assert in_company < (decoder.num_passes - before) / 2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_eight_turns_of_one_strategy_answer_as_alone(strategy):
    turns = [(number, values_of(strategy, seed=number)) for number in range(8)]
    alone = [ask(turn) for turn in turns]
    forget()
    assert together(turns) == alone


def test_early_exit_beside_greedy_and_another_layer():
    names = ["early_exit", "greedy", "early_exit", "greedy"]
    turns = [(number, values_of(name) | {"exit_layer": 3 + number}) for number, name in enumerate(names)]
    layers = own().loaded.model.config.num_hidden_layers
    alone = [ask(turn) for turn in turns]
    forget()
    assert together(turns) == alone
    assert own().loaded.model.config.num_hidden_layers == layers


@pytest.mark.parametrize("strategy", SAMPLING)
def test_a_seed_belongs_to_its_turn(strategy):
    """Nobody draws from the global generator, which a turn beside it would disturb."""
    state = torch.random.get_rng_state()
    turns = [(number, values_of(name, seed=3)) for number, name in enumerate([strategy, "sampling", "beam_sampling"])]
    alone = [ask(turn) for turn in turns]
    forget()
    assert together(turns) == alone
    assert torch.equal(torch.random.get_rng_state(), state)


def test_who_decodes_beside_a_long_prompt_waits_for_two_passes_at_most():
    """The pass that runs when it asks, and the next one, which has its row. The prompt gets its share of each."""
    never = endless_engine()
    model = never.loaded.model
    decoder, run = model.decoder, model.decoder.run
    passes, enough = [], threading.Event()

    def counted(batch):
        passes.append([sum(len(each.ids) for each in batch if each.is_chunk == kind) for kind in (False, True)])
        if len(passes) == 40:
            enough.set()
        return run(batch)

    decoder.run = counted
    cancel, turns = threading.Event(), []
    with ThreadPoolExecutor(16) as threads:
        for number in range(16):
            values = {"strategy": "sampling", "seed": number, "max_new_tokens": 400, "top_p": 1.0, "top_k": 0}
            turns.append(threads.submit(answer, never, [Message("user", "Go on.")], cancel, **values))
        until(enough.is_set)
        del passes[:]
        list(deltas(never, [Message("user", LONG * 30)], max_new_tokens=4))
        cancel.set()
        assert all(turn.result().finish == "stopped" for turn in turns)
    of_prompt = [each for each in passes if each[1]]
    tokens = sum(chunk for _, chunk in of_prompt)
    assert len(of_prompt) < 2 * tokens / (decoder.max_rows - 16) + 2
    assert sum(decoding for decoding, _ in of_prompt) > 16
    assert model.scheduler.max_left_out == 0


def test_no_turn_waits_for_the_drafts_of_others():
    """Three turns with many draft tokens ask before six with one token each, while a pass runs."""
    model = endless_engine().loaded.model
    decoder, scheduler, begun, goes_on = model.decoder, model.scheduler, threading.Event(), threading.Event()
    run, passes = decoder.run, []

    def held(batch):
        begun.set()
        assert goes_on.wait(60)
        passes.append([len(each.ids) for each in batch])
        return run(batch)

    def read(num_tokens):
        with TURNS.running():
            scheduler.run([PassInput(BlockTable(decoder.pool), [5] * num_tokens, is_chunk=False)])

    decoder.run = held
    with ThreadPoolExecutor(10) as threads:
        turns = [threads.submit(read, 1)]
        until(begun.is_set)
        for num_tokens in [30] * 3 + [1] * 6:
            turns.append(threads.submit(read, num_tokens))
            until(lambda: scheduler.num_waiting == len(turns))
        goes_on.set()
        for turn in turns:
            turn.result()
    assert passes[1] == [1] * 6 + [30, decoder.max_rows - 36]


def test_a_stop_touches_no_other_turn():
    turns = [(number, values_of("greedy") | {"max_new_tokens": 24}) for number in range(4)]
    alone = [ask(turn) for turn in turns]
    forget()
    decoder, cancel = own().loaded.model.decoder, threading.Event()

    def stopped():
        return answer(own(), [Message("user", LONG * 9)], cancel, max_new_tokens=200)

    with (
        watched(decoder, lambda count: cancel.set() if count == 9 else None),
        ThreadPoolExecutor(1) as threads,
    ):
        other = threads.submit(stopped)
        assert together(turns) == alone
        assert other.result().finish == "stopped"


def test_a_fault_ends_the_turn_whose_tokens_cause_it():
    turns = [(number, values_of("greedy") | {"max_new_tokens": 24}) for number in range(4)]
    alone = [ask(turn) for turn in turns]
    forget()
    decoder = own().loaded.model.decoder
    run, marked = decoder.run, []

    def fails_for_one(batch):
        if any(len(each.table.ids) + len(each.ids) > 400 for each in batch):
            marked.append(len(batch))
            raise RuntimeError("the library failed")
        return run(batch)

    decoder.run = fails_for_one
    try:
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(answer, own(), [Message("user", LONG * 40)])
            assert together(turns) == alone
            with pytest.raises(RuntimeError, match="the library failed"):
                other.result()
    finally:
        del decoder.run
    assert marked


def driven(steps, fails_at=None):
    """Drives two decode loops of so many steps at the same time, of which the second one fails at some step.

    Returns what becomes of each, and for each the threads of its steps: its own or the other's.
    """
    model, both_begin, threads = own().loaded.model, threading.Barrier(2), [[], []]
    before = model.decoder.num_passes

    def loop(number):
        table = BlockTable(model.decoder.pool)
        both_begin.wait(60)
        for step in range(steps):
            threads[number].append(threading.get_ident())
            if (number, step) == (1, fails_at):
                raise ValueError("a processor failed")
            yield [PassInput(table, [5 + number], is_chunk=False)]
        return table.ids

    def run(number):
        with TURNS.running():
            try:
                return model.scheduler.drive(loop(number)), threading.get_ident()
            except ValueError as error:
                return error.args, threading.get_ident()

    with ThreadPoolExecutor(2) as pool:
        (first, second), idents = zip(*pool.map(run, range(2)), strict=True)
    elsewhere = [set(threads[number]) - {idents[number]} for number in range(2)]
    return first, second, elsewhere, model.decoder.num_passes - before


def test_one_thread_takes_the_steps_of_all_decode_loops():
    first, second, elsewhere, passes = driven(20)
    assert (first, second) == ([5] * 20, [6] * 20)
    assert any(elsewhere) and passes < 30


def test_a_loop_whose_steps_take_long_takes_them_in_its_own_thread(monkeypatch):
    monkeypatch.setattr(scheduler, "MAX_STEP_SECONDS", -1.0)
    first, second, elsewhere, _ = driven(20)
    assert (first, second) == ([5] * 20, [6] * 20)
    assert not any(elsewhere)


def test_a_fault_in_a_step_belongs_to_its_turn_in_whatever_thread_it_ran():
    first, second, *_ = driven(20, fails_at=10)
    assert first == [5] * 20 and second == ("a processor failed",)


class Crowded:
    """The pool while only so many of its blocks are free."""

    def __init__(self, pool, free):
        self.pool = pool
        until(lambda: gc.collect() >= 0 and pool.num_free == pool.num_blocks - 1)  # threads and errors hold some
        self.taken = [pool.allocate() for _ in range(pool.num_free - free)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.release(self.taken)


@pytest.mark.parametrize(
    "strategies",
    [
        ["greedy"] * 6,
        pytest.param(["beams", "sampling", "contrastive", "greedy"], marks=pytest.mark.slow),
        pytest.param(["dola", "early_exit", "beams"], marks=pytest.mark.slow),
    ],
)
def test_turns_that_need_more_blocks_than_there_are_take_turns_and_no_bit_changes(strategies):
    turns = [(3 * k + 2, values_of(name, k) | {"max_new_tokens": 70}) for k, name in enumerate(strategies)]
    alone = [ask(turn) for turn in turns]
    forget()
    model = own().loaded.model
    before = model.scheduler.num_paused
    free = 13 if "beams" in strategies else 9
    with Crowded(model.decoder.pool, free):
        assert together(turns) == alone
        forget()
        until(lambda: model.decoder.pool.num_free == free)
    assert model.scheduler.num_paused > before


def test_a_turn_that_can_never_be_placed_is_refused_and_the_others_go_on():
    turns = [(2, values_of("greedy")), (5, values_of("sampling", 1))]
    alone = [ask(turn) for turn in turns]
    forget()
    pool = own().loaded.model.decoder.pool
    with Crowded(pool, 10), ThreadPoolExecutor(1) as threads:
        large = threads.submit(answer, own(), [Message("user", LONG * (10 * BLOCK_SIZE // 12))])
        assert together(turns) == alone
        with pytest.raises(OutOfBlocks, match="memory"):
            large.result()
        forget()
        until(lambda: pool.num_free == 10)


def test_the_rest_of_an_input_has_no_more_rows_of_logits_than_tokens():
    whole = PassInput(None, list(range(100)), is_chunk=True, num_logits=100)
    first = Room(64, 0).take(whole)
    rest = Room(64, 0).take(whole._replace(ids=whole.ids[64:]))
    assert [(len(each.ids), each.num_logits) for each in (first, rest)] == [(64, 64), (36, 36)]
