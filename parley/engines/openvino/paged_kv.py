"""One pool of KV blocks a model; a sequence is a table of blocks, which are shared and copied on write.

Block tables and copy on write are those of PagedAttention (Kwon et al., 2023, https://arxiv.org/abs/2309.06180).
"""

import heapq
import threading
import weakref
from collections.abc import Callable, Sequence

import openvino
import torch
from transformers import Cache

from parley.errors import ModelUnavailable

BLOCK_SIZE = 32  # tokens; the operator's own on CPUs


class OutOfBlocks(ModelUnavailable):
    """All blocks hold what running turns need."""

    def __init__(self) -> None:
        super().__init__(
            "The memory for this model's keys and values is used up. "
            "Ask for fewer beams or a shorter answer, or shorten the conversation."
        )


class BlockPool:
    """The keys and values of one model, `num_blocks` blocks of `BLOCK_SIZE` tokens, and who uses them.

    The lowest free block is taken first: memory that was never written is none that the process has taken. `reclaim`
    is called when no block is free; it gives up blocks of what is only remembered, and is False where there are none.
    """

    def __init__(self, tensors: Sequence[openvino.Tensor], num_blocks: int) -> None:
        self._blocks = [tensor.data for tensor in tensors]
        self._free = list(range(num_blocks))
        self._references = [0] * num_blocks
        self._lock = threading.RLock()
        self.num_blocks, self.num_touched = num_blocks, 0
        self.reclaim: Callable[[], bool] = lambda: False
        self.bytes_per_block = sum(block.nbytes // num_blocks for block in self._blocks)
        self.unused = self.allocate()  # belongs to nobody: rows that only fill a pass are written there

    @property
    def num_free(self) -> int:
        """How many blocks nobody uses."""
        return len(self._free)

    def num_users(self, block: int) -> int:
        """How many tables have this block."""
        return self._references[block]

    def allocate(self) -> int:
        """A block with one user; raises `OutOfBlocks`."""
        while True:
            with self._lock:
                if self._free:
                    block = heapq.heappop(self._free)
                    self._references[block] = 1
                    self.num_touched = max(self.num_touched, block + 1)
                    return block
            if not self.reclaim():
                raise OutOfBlocks

    def share(self, blocks: Sequence[int]) -> None:
        """One more user for each of these blocks."""
        with self._lock:
            for block in blocks:
                self._references[block] += 1

    def release(self, blocks: list[int]) -> None:
        """One user less for each of these blocks; empties the list."""
        with self._lock:
            while blocks:
                block = blocks.pop()
                self._references[block] -= 1
                if not self._references[block]:
                    heapq.heappush(self._free, block)

    def exclusive(self, block: int) -> int:
        """The block itself where it has one user, else a copy of it for one of them."""
        with self._lock:
            if self._references[block] == 1:
                return block
        copy = self.allocate()
        for blocks in self._blocks:
            blocks[copy] = blocks[block]
        self.release([block])
        return copy


class BlockTable:
    """The blocks of one sequence, and how many of its tokens are written; gives them back with the last reference."""

    def __init__(self, pool: BlockPool, blocks: list[int] | None = None, length: int = 0) -> None:
        self._pool = pool
        self.blocks = blocks or []
        self.length = length  # tokens
        weakref.finalize(self, pool.release, self.blocks)

    def reserve(self, count: int) -> None:
        """Makes room for `count` tokens more, in blocks that nobody else reads; raises `OutOfBlocks`."""
        first = self.length // BLOCK_SIZE
        for place in range(first, min(len(self.blocks), blocks_for(self.length + count))):
            self.blocks[place] = self._pool.exclusive(self.blocks[place])
        while len(self.blocks) < blocks_for(self.length + count):
            self.blocks.append(self._pool.allocate())

    def fork(self) -> "BlockTable":
        """Another sequence that begins with all tokens of this one."""
        blocks = self.blocks[: blocks_for(self.length)]
        self._pool.share(blocks)
        return BlockTable(self._pool, blocks, self.length)

    def crop(self, length: int) -> None:
        """Forgets the tokens after the first `length`."""
        self.length = min(self.length, length)
        self._pool.release(_cut(self.blocks, blocks_for(self.length)))

    def release(self) -> None:
        """Gives all blocks back."""
        self.crop(0)


class PagedKVCache(Cache):
    """The sequences of one turn, for the loops of transformers: one, or as many as there are beams or candidates.

    Tokens at places below `prompt_length` are read as pieces of a prompt, later ones in decode's class (see
    `batch_invariance`). None: the first tokens that are read are the prompt.
    """

    def __init__(self, tables: Sequence[BlockTable], prompt_length: int | None = None) -> None:
        super().__init__(layers=[])
        self.tables = list(tables)
        self.prompt_length = prompt_length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens of the first sequence are written."""
        return self.tables[0].length

    def activate_past_recording(self) -> None:
        """Nothing has to be done before tokens are forgotten."""

    def crop(self, max_length: int) -> None:
        """Forgets the last `-max_length` tokens of every sequence; a positive number is the length to keep."""
        for table in self.tables:
            table.crop(max_length if max_length > 0 else table.length + max_length)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Sequence i goes on from the one that `beam_idx`, shape (sequences,), names at i."""
        self.tables = [self.tables[source].fork() for source in beam_idx.tolist()]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        self.tables = [table.fork() for table in self.tables for _ in range(repeats)]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only the sequences that `indices`, shape (sequences,), names."""
        self.reorder_cache(indices)


def blocks_for(tokens: int) -> int:
    """How many blocks so many tokens need."""
    return -(-tokens // BLOCK_SIZE)


def _cut(items: list[int], length: int) -> list[int]:
    rest = items[length:]
    del items[length:]
    return rest
