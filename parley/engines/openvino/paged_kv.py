"""The KV cache: one pool of blocks per model. A sequence is a table of blocks, which are shared and copied on write.

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

BLOCK_SIZE = 32  # tokens; fixed by OpenVINO's paged attention on CPUs


class OutOfBlocks(ModelUnavailable):
    """A turn needs more blocks than it can get: room for `needed` tokens, of `existing`, where these are known."""

    def __init__(self, needed: int = 0, existing: int = 0) -> None:
        figures = f": it has room for {existing:,} tokens, and this answer needs {needed:,}" if existing else ""
        super().__init__(
            f"The memory for this model's keys and values is used up{figures}. "
            "Ask for fewer beams or a shorter answer, or shorten the conversation."
        )


class BlockPool:
    """The keys and values of one model: `num_blocks` blocks of `BLOCK_SIZE` tokens, with reference counts.

    `allocate` takes the lowest free block, so that the process uses little memory: the system gives a process no
    memory for blocks that were never written. If no block is free, `allocate` calls `reclaim`, which frees blocks of
    cached prefixes and returns False if there are none.
    """

    def __init__(self, tensors: Sequence[openvino.Tensor], num_blocks: int) -> None:
        self._blocks = [tensor.data for tensor in tensors]
        self._free = list(range(num_blocks))
        self._references = [0] * num_blocks
        self._lock = threading.RLock()
        self.num_blocks, self.num_touched = num_blocks, 0
        self.reclaim: Callable[[], bool] = lambda: False
        self.bytes_per_block = sum(block.nbytes // num_blocks for block in self._blocks)
        self.padding_block = self.allocate()  # padding rows write here; no table holds this block

    @property
    def num_free(self) -> int:
        """The number of free blocks."""
        return len(self._free)

    def num_users(self, block: int) -> int:
        """The number of tables that hold this block."""
        return self._references[block]

    def allocate(self) -> int:
        """Takes a free block, with one user. Raises `OutOfBlocks`."""
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
        """Adds one user to each of these blocks."""
        with self._lock:
            for block in blocks:
                self._references[block] += 1

    def release(self, blocks: list[int]) -> None:
        """Removes one user from each of these blocks, and empties the list."""
        with self._lock:
            while blocks:
                block = blocks.pop()
                self._references[block] -= 1
                if not self._references[block]:
                    heapq.heappush(self._free, block)

    def exclusive(self, block: int) -> int:
        """A block with the same content and one user: the block itself, or a copy if it has more users."""
        with self._lock:
            if self._references[block] == 1:
                return block
        copy = self.allocate()
        for blocks in self._blocks:
            blocks[copy] = blocks[block]
        self.release([block])
        return copy


class BlockTable:
    """The blocks of one sequence, and the tokens in them. Deleting the table releases its blocks.

    It remembers its tokens, so that it can give up its blocks for a while: `evict`. Then they are read again, as
    before: the first `num_prefilled` in chunks, and the others in decode mode.
    """

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.blocks: list[int] = []
        self.ids: list[int] = []
        self.length = 0  # how many of these tokens the blocks hold: all of them, or fewer while it is evicted
        self.num_prefilled = 0  # how many of them were read in chunks
        weakref.finalize(self, pool.release, self.blocks)

    @property
    def is_evicted(self) -> bool:
        """Whether some of its tokens have to be read again."""
        return self.length < len(self.ids)

    def is_reserved(self, count: int) -> bool:
        """Whether it has blocks for `count` more tokens."""
        return len(self.blocks) >= blocks_for(self.length + count)

    def append(self, ids: Sequence[int], is_chunk: bool) -> None:
        """Notes that a pass has read these tokens into the reserved blocks."""
        self.ids[self.length : self.length + len(ids)] = ids  # the same ones if they are read again
        self.length += len(ids)
        if is_chunk:
            self.num_prefilled = max(self.num_prefilled, self.length)

    def evict(self) -> None:
        """Releases all blocks, and remembers what they held."""
        self.length = 0
        self.pool.release(self.blocks)

    def adopt(self, other: "BlockTable") -> None:
        """Takes the blocks of another sequence for the tokens that both have in common and read in the same mode.

        Only for an evicted sequence, none of which is read again yet.
        """
        count = next(
            (i for i, (own, its) in enumerate(zip(self.ids, other.ids, strict=False)) if own != its),
            min(len(self.ids), len(other.ids)),
        )
        if self.num_prefilled != other.num_prefilled:
            count = min(count, self.num_prefilled, other.num_prefilled)
        if self.num_prefilled - count == 1:  # a chunk has two rows or more
            count -= 1
        blocks = other.blocks[: blocks_for(count)]
        self.pool.share(blocks)
        self.blocks += blocks
        self.length = count

    def reserve(self, count: int) -> None:
        """Allocates blocks for `count` more tokens, and copies shared ones (copy on write). Raises `OutOfBlocks`."""
        first = self.length // BLOCK_SIZE
        for i in range(first, min(len(self.blocks), blocks_for(self.length + count))):
            self.blocks[i] = self.pool.exclusive(self.blocks[i])
        while len(self.blocks) < blocks_for(self.length + count):
            self.blocks.append(self.pool.allocate())

    def fork(self) -> "BlockTable":
        """A new sequence that shares the tokens of this one."""
        made = BlockTable(self.pool)
        blocks = self.blocks[: blocks_for(self.length)]
        self.pool.share(blocks)
        made.blocks += blocks
        made.ids, made.length, made.num_prefilled = self.ids.copy(), self.length, self.num_prefilled
        return made

    def crop(self, length: int) -> None:
        """Drops the tokens after the first `length`."""
        self.length = min(self.length, length)
        self.num_prefilled = min(self.num_prefilled, length)
        del self.ids[length:]
        self.pool.release(_truncate(self.blocks, blocks_for(self.length)))

    def release(self) -> None:
        """Releases all blocks."""
        self.crop(0)


class PagedKVCache(Cache):
    """The cache of one turn for the decode loops of transformers: one sequence, or one for each beam or candidate.

    Tokens at positions below `prompt_length` are read in prefill chunks, later ones in decode mode (see
    `batch_invariance`). If `prompt_length` is None, the first call of the model sets it. `beside` gives what is read
    already of another prompt, a negative one; `states` are those of the tokens that were read before, where they are
    needed, of shape (tokens, width).
    """

    def __init__(self, tables: Sequence[BlockTable], prompt_length: int | None = None) -> None:
        super().__init__(layers=[])
        self.tables = list(tables)
        self.prompt_length = prompt_length
        self.states: torch.Tensor | None = None
        pool = self.tables[0].pool
        self.beside: Callable[[Sequence[int]], BlockTable] = lambda _: BlockTable(pool)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number of tokens in the first sequence."""
        return self.tables[0].length

    def activate_past_recording(self) -> None:
        """No-op: `crop` needs no preparation."""

    def crop(self, max_length: int) -> None:
        """Crops every sequence to `max_length` tokens; a negative number is the number of last tokens to drop."""
        for table in self.tables:
            table.crop(max_length if max_length > 0 else table.length + max_length)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Sequence i becomes a fork of sequence `beam_idx[i]`. `beam_idx` has the shape (sequences,)."""
        self.tables = [self.tables[source].fork() for source in beam_idx.tolist()]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each sequence `repeats` times."""
        self.tables = [table.fork() for table in self.tables for _ in range(repeats)]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps only the sequences `indices`, shape (sequences,)."""
        self.reorder_cache(indices)


def blocks_for(tokens: int) -> int:
    """The number of blocks for so many tokens."""
    return -(-tokens // BLOCK_SIZE)


def _truncate(items: list[int], length: int) -> list[int]:
    """Cuts the list to `length` items, and returns the rest."""
    rest = items[length:]
    del items[length:]
    return rest
