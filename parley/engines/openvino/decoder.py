"""A compiled graph and its pool of KV blocks. It runs one ragged batch at a time, by the rules of batch invariance."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import openvino

from parley.engines.load_errors import NotFinite
from parley.engines.openvino.paged_kv import BlockPool, BlockTable, blocks_for

MAX_ROWS = 64  # of a pass; `batch_invariance.max_rows` may find a smaller number for a processor


class PassInput(NamedTuple):
    """The tokens `ids` of one sequence, which a pass reads after the tokens that `table` holds.

    With `is_chunk` (a chunk of a prompt) they are computed as one sequence of several rows. Otherwise each token is
    computed as a sequence of one row, so that the result is the same as in separate passes. The pass returns the
    logits after the last `num_logits` tokens, and with `early` also those of the layers `Decoder.early`.
    """

    table: BlockTable
    ids: Sequence[int]
    is_chunk: bool
    num_logits: int = 1
    early: bool = False


@dataclass(frozen=True)
class PassOutput:
    """The results of a pass, in the order of its rows."""

    logits: np.ndarray  # (sum of num_logits, vocabulary)
    early: np.ndarray  # (early layers, sum of num_logits of the inputs with `early`, vocabulary)
    hidden: np.ndarray  # (rows, width): hidden states after the last norm


class Decoder:
    """One graph on the CPU. Passes of several threads run one after the other.

    This class makes sure that a matrix product has at least two rows, also in the head. It adds padding rows, which
    write to the padding block. The caller has to keep `max_rows` and the mode (prefill or decode) of each token.
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
        self._inputs: dict[str, np.ndarray] = {}  # the inputs of the request, without the KV caches
        self._layout = {  # element type and shape of one block in each KV cache
            port.any_name: (port.element_type, [size.get_length() for size in list(port.partial_shape)[1:]])
            for port in self._compiled.inputs
            if port.any_name.startswith(("key_cache.", "value_cache."))
        }

    @property
    def num_layers(self) -> int:
        """The layers of the graph. Each one has a key cache and a value cache."""
        return len(self._layout) // 2

    @property
    def bytes_per_block(self) -> int:
        """The memory of one block, summed over all layers."""
        return sum(int(np.prod(shape)) * kind.size for kind, shape in self._layout.values())

    @property
    def pool(self) -> BlockPool:
        """The blocks that the graph reads and writes. Call `make_pool` or `share_pool` first."""
        assert self._pool is not None
        return self._pool

    def make_pool(self, num_blocks: int) -> None:
        """Allocates a pool for this decoder. Call it once, before the first pass."""
        self._tensors = {
            name: openvino.Tensor(kind, openvino.Shape([num_blocks, *shape]))
            for name, (kind, shape) in self._layout.items()
        }
        self._use(self._tensors)
        self._pool = BlockPool(list(self._tensors.values()), num_blocks)

    def share_pool(self, other: "Decoder") -> None:
        """Uses the blocks of `other`, whose first layers must be the layers of this decoder."""
        self._use({name: other._tensors[name] for name in self._layout})
        self._pool, self._lock = other.pool, other._lock

    def _use(self, tensors: Mapping[str, openvino.Tensor]) -> None:
        for name, tensor in tensors.items():
            self._request.set_tensor(name, tensor)

    def run(self, batch: Sequence[PassInput]) -> PassOutput:
        """Runs one pass over these tokens and adds them to the tables.

        After an exception the tables hold the same tokens as before. Raises `NotFinite` where a logit is NaN: it would
        be chosen again and again.
        """
        ragged = _RaggedBatch()
        with self._lock:
            for sequence in batch:
                sequence.table.reserve(len(sequence.ids))
                ragged.add(sequence)
            output = self._infer(ragged)
            if output.logits.size and np.isnan(output.logits.max()):  # a third of the time of looking at each
                raise NotFinite
            for sequence in batch:
                sequence.table.append(sequence.ids, sequence.is_chunk)
            self.num_passes += 1
        return output

    def _set_input(self, name: str, array: np.ndarray) -> None:
        """Sets an input. If the last pass had the same shape, its array is overwritten, which is ten times as fast."""
        current = self._inputs.get(name)
        if current is not None and current.shape == array.shape:
            current[...] = array
            return
        self._inputs[name] = array
        self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def _infer(self, ragged: "_RaggedBatch") -> PassOutput:
        num_rows = len(ragged.ids)
        if num_rows == 1:
            ragged.add_padding(self.pool.padding_block)
        num_padded_rows, num_logits = len(ragged.ids), len(ragged.logit_rows)
        # The head reads rows of the last layer, and then of each early one.
        num_early = len(self.early)
        head_rows = [*ragged.logit_rows]
        head_rows += [i * num_padded_rows + row for i in range(1, num_early + 1) for row in ragged.early_rows]
        padded_head_rows = head_rows + [0] * max(0, 2 - len(head_rows))
        inputs = ragged.inputs() | {"logit_rows": np.array(padded_head_rows, np.int64)}
        for name, array in inputs.items():
            self._set_input(name, array)
        self._request.infer()
        logits, hidden = (self._request.get_output_tensor(i).data for i in range(2))
        logits = logits[: len(head_rows)].copy()
        early = logits[num_logits:].reshape(num_early, len(ragged.early_rows), logits.shape[1])
        return PassOutput(logits[:num_logits], early, hidden[:num_rows].copy())


class _RaggedBatch:
    """Builds the inputs of one pass."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logit_rows: list[int] = []
        self.early_rows: list[int] = []  # those of them whose early logits are wanted
        self._positions: list[int] = []
        self._past_lengths: list[int] = []
        self._begins, self._block_begins = [0], [0]
        self._blocks: list[int] = []

    def add(self, sequence: PassInput) -> None:
        """Adds the tokens of one sequence."""
        length, count = sequence.table.length, len(sequence.ids)
        for begin, end in [(0, count)] if sequence.is_chunk else [(i, i + 1) for i in range(count)]:
            self._add(sequence.ids[begin:end], length + begin, sequence.table.blocks)
        logit_rows = range(len(self.ids) - sequence.num_logits, len(self.ids))
        self.logit_rows += logit_rows
        self.early_rows += logit_rows if sequence.early else ()

    def add_padding(self, block: int) -> None:
        """Adds a padding row, which writes to `block`."""
        self._add([0], 0, [block])

    def _add(self, ids: Sequence[int], past_length: int, blocks: Sequence[int]) -> None:
        self.ids += ids
        self._positions += range(past_length, past_length + len(ids))
        self._past_lengths.append(past_length)
        self._begins.append(len(self.ids))
        self._blocks += blocks[: blocks_for(past_length + len(ids))]
        self._block_begins.append(len(self._blocks))

    def inputs(self) -> dict[str, np.ndarray]:
        """All inputs of the graph except `logit_rows`, by name."""
        return {
            "input_ids": np.array(self.ids, np.int64),
            "position_ids": np.array(self._positions, np.int64),
            "past_lens": np.array(self._past_lengths, np.int32),
            "subsequence_begins": np.array(self._begins, np.int32),
            "block_indices": np.array(self._blocks, np.int32),
            "block_indices_begins": np.array(self._block_begins, np.int32),
            "max_context_len": np.array(max(self._positions) + 1, np.int32),
        }
