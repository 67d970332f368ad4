"""A compiled graph and its pool: one ragged pass at a time, by the rules of batch invariance."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino

from parley.engines.openvino.paged_kv import BlockPool, BlockTable, blocks_for

MAX_ROWS = 64  # of a pass, where nothing smaller was found for this processor


@dataclass(frozen=True)
class Rows:
    """Tokens that one pass reads after those that `table` holds.

    As a `piece` of a prompt they are one sequence of several rows; else each is a sequence of one row, as if they
    came one after the other. The logits after the last `wanted` of them are asked for.
    """

    table: BlockTable
    ids: Sequence[int]
    piece: bool
    wanted: int = 1


@dataclass(frozen=True)
class Made:
    """What a pass made, in the order of its rows."""

    logits: np.ndarray  # (wanted, vocabulary)
    early: np.ndarray  # (early layers, wanted, vocabulary)
    hidden: np.ndarray  # (rows, width): hidden states after the last norm


class Decoder:
    """One graph on the CPU. Passes of several threads run one after the other.

    Rules that are kept here: a matrix product has at least two rows, the head's too, and what fills a pass is written
    to a block of nobody's. `max_rows` and the classes of rows are for the caller to keep.
    """

    def __init__(
        self, model: openvino.Model, properties: Mapping[str, Any], early: Sequence[int] = (), max_rows: int = MAX_ROWS
    ) -> None:
        self.weight_bytes = sum(op.data.nbytes for op in model.get_ops() if op.get_type_name() == "Constant")
        self._compiled = openvino.Core().compile_model(model, "CPU", dict(properties))
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()
        self.early, self.max_rows = tuple(early), max_rows
        self.num_passes = 0
        self._pool: BlockPool | None = None
        self._tensors: dict[str, openvino.Tensor] = {}
        self._inputs: dict[str, np.ndarray] = {}  # what the request reads, other than the caches
        self._layout = {  # of one block in each cache
            port.any_name: (port.element_type, [size.get_length() for size in list(port.partial_shape)[1:]])
            for port in self._compiled.inputs
            if port.any_name.startswith(("key_cache.", "value_cache."))
        }

    @property
    def num_layers(self) -> int:
        """Those of the graph, each of which has two caches."""
        return len(self._layout) // 2

    @property
    def bytes_per_block(self) -> int:
        """The memory of one block in all layers."""
        return sum(int(np.prod(shape)) * kind.size for kind, shape in self._layout.values())

    @property
    def pool(self) -> BlockPool:
        """The blocks that it reads and writes. It must have been made or shared before."""
        assert self._pool is not None
        return self._pool

    def make_pool(self, num_blocks: int) -> None:
        """Gives it a pool of its own; to be called once, before the first pass."""
        self._tensors = {
            name: openvino.Tensor(kind, openvino.Shape([num_blocks, *shape]))
            for name, (kind, shape) in self._layout.items()
        }
        self._use(self._tensors)
        self._pool = BlockPool(list(self._tensors.values()), num_blocks)

    def share_pool(self, other: "Decoder") -> None:
        """Reads and writes the blocks of `other`, whose first layers are its own."""
        self._use({name: other._tensors[name] for name in self._layout})
        self._pool, self._lock = other.pool, other._lock

    def _use(self, tensors: Mapping[str, openvino.Tensor]) -> None:
        for name, tensor in tensors.items():
            self._request.set_tensor(name, tensor)

    def run(self, batch: Sequence[Rows], early: bool = False) -> Made:
        """One pass over all these rows. The tables have them afterwards; after an exception they are as before.

        With `early` the logits of the layers `self.early` are computed beside the last ones.
        """
        rows = _RaggedRows()
        with self._lock:
            for asked in batch:
                asked.table.reserve(len(asked.ids))
                rows.add(asked)
            made = self._infer(rows, early)
            for asked in batch:
                asked.table.length += len(asked.ids)
            self.num_passes += 1
        return made

    def _give(self, name: str, array: np.ndarray) -> None:
        """Sets an input. One of the same shape as in the last pass is written over, which is ten times as fast."""
        held = self._inputs.get(name)
        if held is not None and held.shape == array.shape:
            held[...] = array
            return
        self._inputs[name] = array
        self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def _infer(self, rows: "_RaggedRows", early: bool) -> Made:
        count = len(rows.ids)
        if count == 1:
            rows.fill(self.pool.unused)
        total, wanted = len(rows.ids), rows.wanted
        levels = 1 + (len(self.early) if early else 0)
        places = [level * total + row for level in range(levels) for row in wanted]
        given = rows.inputs() | {"logit_rows": np.array(places + [0] * max(0, 2 - len(places)), np.int64)}
        for name, array in given.items():
            self._give(name, array)
        self._request.infer()
        logits, hidden = (self._request.get_output_tensor(i).data for i in range(2))
        logits = logits[: len(places)].copy().reshape(levels, len(wanted), logits.shape[1])
        return Made(logits[0], logits[1:], hidden[:count].copy())


class _RaggedRows:
    """The inputs of one pass in the making."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.wanted: list[int] = []
        self._positions: list[int] = []
        self._past: list[int] = []
        self._begins, self._block_begins = [0], [0]
        self._blocks: list[int] = []

    def add(self, asked: Rows) -> None:
        """The rows of one sequence."""
        held, count = asked.table.length, len(asked.ids)
        for begin, end in [(0, count)] if asked.piece else [(i, i + 1) for i in range(count)]:
            self._add(asked.ids[begin:end], held + begin, asked.table.blocks)
        self.wanted += range(len(self.ids) - asked.wanted, len(self.ids))

    def fill(self, block: int) -> None:
        """A row of nobody's."""
        self._add([0], 0, [block])

    def _add(self, ids: Sequence[int], held: int, blocks: Sequence[int]) -> None:
        self.ids += ids
        self._positions += range(held, held + len(ids))
        self._past.append(held)
        self._begins.append(len(self.ids))
        self._blocks += blocks[: blocks_for(held + len(ids))]
        self._block_begins.append(len(self._blocks))

    def inputs(self) -> dict[str, np.ndarray]:
        """All but `logit_rows`, as the graph names them."""
        return {
            "input_ids": np.array(self.ids, np.int64),
            "position_ids": np.array(self._positions, np.int64),
            "past_lens": np.array(self._past, np.int32),
            "subsequence_begins": np.array(self._begins, np.int32),
            "block_indices": np.array(self._blocks, np.int32),
            "block_indices_begins": np.array(self._block_begins, np.int32),
            "max_context_len": np.array(max(self._positions) + 1, np.int32),
        }
