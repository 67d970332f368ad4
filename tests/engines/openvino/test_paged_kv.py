"""Tables share blocks and never write what another reads; all blocks come back."""

import gc
import random

import pytest

pytest.importorskip("openvino")

import numpy as np
import openvino
import torch

from parley.engines.openvino.paged_kv import BLOCK_SIZE, BlockPool, BlockTable, OutOfBlocks, PagedKVCache
from tests.conftest import until
from tests.engines.openvino.drawing import read_plainly


def pool_of(num_blocks):
    """A pool with one number for each token, and the array of these, shape (blocks, tokens)."""
    tensor = openvino.Tensor(openvino.Type.i64, openvino.Shape([num_blocks, BLOCK_SIZE]))
    return BlockPool([tensor], num_blocks), tensor.data


def write(pool, memory, table, numbers):
    """As a pass does: makes room, then writes."""
    table.reserve(len(numbers))
    for place, number in enumerate(numbers, table.length):
        block = table.blocks[place // BLOCK_SIZE]
        assert pool.num_users(block) == 1
        memory[block, place % BLOCK_SIZE] = number
    table.length += len(numbers)


def read(memory, table):
    return [memory[table.blocks[i // BLOCK_SIZE], i % BLOCK_SIZE] for i in range(table.length)]


@pytest.mark.parametrize("seed", range(4))
def test_random_tables_hold_what_lists_would(seed):
    chance = random.Random(seed)
    pool, memory = pool_of(chance.choice([12, 40, 400]))
    memory[pool.padding_block] = -1
    pairs, refused, each, known = [(BlockTable(pool), [])], 0, None, None
    for step in range(400):
        table, numbers = chance.choice(pairs)
        match chance.choice(["write", "write", "write", "fork", "crop", "drop", "release"]):
            case "write":
                new = [step * 1000 + i for i in range(chance.choice([1, 1, 2, 31, 32, 33, 70]))]
                try:
                    write(pool, memory, table, new)
                    numbers += new
                except OutOfBlocks:
                    refused += 1
                    chance.choice(pairs)[0].release()
                    for each, known in pairs:
                        del known[each.length :]
            case "fork":
                pairs.append((table.fork(), list(numbers)))
            case "crop":
                kept = chance.randint(0, len(numbers) + 3)
                table.crop(kept)
                del numbers[kept:]
            case "drop" if len(pairs) > 1:
                pairs.remove((table, numbers))
            case "release" if chance.random() < 0.1:
                table.release()
                numbers.clear()
        del table, numbers
        assert all(read(memory, each) == known for each, known in pairs)
    assert refused or pool.num_blocks > 12
    assert (memory[pool.padding_block] == -1).all()
    assert pool.num_touched <= pool.num_blocks
    del pairs, each, known
    assert pool.num_free == pool.num_blocks - 1
    assert sorted(pool.allocate() for _ in range(pool.num_free)) == list(range(1, pool.num_blocks))


def test_a_fork_takes_no_block_until_it_writes_and_then_one():
    pool, memory = pool_of(20)
    table = BlockTable(pool)
    write(pool, memory, table, range(100))  # three blocks and a bit
    used = pool.num_free
    forks = [table.fork() for _ in range(5)]
    assert pool.num_free == used
    write(pool, memory, forks[0], [7])
    assert pool.num_free == used - 1
    assert forks[0].blocks[:3] == table.blocks[:3] and forks[0].blocks[3] != table.blocks[3]
    assert read(memory, forks[0])[:100] == read(memory, table) == list(range(100))


def test_memory_that_no_token_needed_is_never_touched():
    pool, memory = pool_of(50)
    for _ in range(20):
        table = BlockTable(pool)
        write(pool, memory, table, range(70))
        del table
    assert pool.num_touched == 4


def test_without_a_free_block_a_sentence_says_so_and_what_was_written_stays():
    pool, memory = pool_of(5)
    table = BlockTable(pool)
    write(pool, memory, table, range(100))
    with pytest.raises(OutOfBlocks, match="Ask for fewer beams or a shorter answer, or shorten the conversation"):
        write(pool, memory, table, range(60))
    assert read(memory, table) == list(range(100))
    fork = table.fork()
    table.crop(70)
    with pytest.raises(OutOfBlocks):  # the copy needs a block too
        write(pool, memory, table, [1])
    assert (read(memory, fork), read(memory, table)) == (list(range(100)), list(range(70)))
    del fork
    write(pool, memory, table, [1])


def test_what_is_remembered_is_given_up_one_after_the_other_until_there_is_room():
    pool, memory = pool_of(9)
    remembered = [BlockTable(pool) for _ in range(4)]
    for table in remembered:
        write(pool, memory, table, range(64))
    del table
    pool.reclaim = lambda: bool(remembered and [remembered.pop(0)])
    new = BlockTable(pool)
    write(pool, memory, new, range(96))
    assert len(remembered) == 2
    write(pool, memory, new, range(100, 260))
    assert remembered == []
    with pytest.raises(OutOfBlocks):
        write(pool, memory, new, [1])


@pytest.fixture
def model(budgie):
    """The bundled model; the test may leave no block in use."""
    pool = budgie.loaded.model.decoder.pool

    def all_free():
        gc.collect()
        while pool.reclaim():
            pass
        return pool.num_free == pool.num_blocks - 1

    until(all_free)  # an answer of another test may still be being read
    yield budgie.loaded.model
    gc.collect()
    assert pool.num_free == pool.num_blocks - 1


@pytest.mark.parametrize(
    "held",
    [
        BLOCK_SIZE - 1,
        BLOCK_SIZE + 5,
        *(pytest.param(held, marks=pytest.mark.slow) for held in (2, BLOCK_SIZE, 3 * BLOCK_SIZE)),
    ],
)
def test_beams_that_branch_anywhere_never_read_what_another_wrote(model, held):
    chance = random.Random(held)
    vocabulary, beams = model.config.vocab_size, 5

    def drawn(count):
        return chance.choices(range(vocabulary), k=count)

    prompt = drawn(held)
    cache = model.new_cache()
    model(torch.tensor([prompt]), cache, 1)
    kept = cache.tables[0].fork()  # as a session keeps its prompt
    cache.batch_repeat_interleave(beams)
    sequences = [[]] * beams
    for _ in range(BLOCK_SIZE + 10):
        ids = drawn(beams)
        sequences = [[*sequence, id] for sequence, id in zip(sequences, ids, strict=True)]
        logits = model(torch.tensor(ids)[:, None], cache, 1).logits[:, -1]
        order = drawn(1)[0] % 3 and [beam % beams for beam in drawn(beams)]
        if order:
            cache.reorder_cache(torch.tensor(order))
            sequences, logits = [sequences[i] for i in order], logits[order]
    for sequence, row in zip(sequences, logits, strict=True):
        assert np.array_equal(row, read_plainly(model.decoder, prompt, sequence).logits[-1])
    # Whose prompt it was reads it as before.
    again = drawn(4)
    later = model(torch.tensor([again]), PagedKVCache([kept], prompt_length=held), 0).logits[0]
    assert np.array_equal(later, read_plainly(model.decoder, prompt, again).logits[held:])


def test_beams_share_the_blocks_of_what_they_have_in_common(model):
    pool = model.decoder.pool
    cache = model.new_cache()
    model(torch.arange(10, 10 + 5 * BLOCK_SIZE)[None], cache, 1)
    used = pool.num_blocks - pool.num_free
    cache.batch_repeat_interleave(8)
    for id in range(BLOCK_SIZE):
        model(torch.full((8, 1), 20 + id), cache, 1)
    assert pool.num_blocks - pool.num_free == used + 8  # one each, and the prompt's once
    cache.batch_select_indices(torch.tensor([3]))
    assert pool.num_blocks - pool.num_free == used + 1
    assert cache.get_seq_length() == 6 * BLOCK_SIZE
    cache.crop(-BLOCK_SIZE)
    assert pool.num_blocks - pool.num_free == used


def test_drafts_that_were_wrong_are_overwritten(model):
    prompt, answer = list(range(50, 90)), [7, 8, 9, 10]
    cache = model.new_cache()
    model(torch.tensor([prompt]), cache, 1)
    model(torch.tensor([[7, 99, 98, 97]]), cache, 0)
    cache.crop(-3)
    rows = model(torch.tensor([answer[1:]]), cache, 0).logits[0]
    assert np.array_equal(rows, read_plainly(model.decoder, prompt, answer).logits[-3:])
