"""What turns ask a scheduler to read, and the part of it that fits into a pass."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parley.engines.openvino.decoder import Decoder, PassInput, PassOutput
from parley.engines.openvino.paged_kv import BLOCK_SIZE, BlockTable, blocks_for
from parley.engines.openvino.turns import RunningTurn

MIN_CHUNK = 2  # rows of a prefill chunk; a single row would be computed in decode mode

# A decode loop that asks for passes: it yields what it reads next, gets the results, and returns whatever it makes.
DecodeLoop = Generator[Sequence[PassInput], PassOutput, Any]


@dataclass(eq=False)
class Request:
    """What one thread waits for: the results of some passes, or with `loop` the end of a decode loop."""

    turn: RunningTurn
    decoder: Decoder
    inputs: list[PassInput]  # what is still to be read
    stopped: Callable[[], bool]
    loop: DecodeLoop | None = None
    is_over: bool = False  # whether the loop has returned `result`
    result: Any = None
    step_seconds: float = 0.0  # the processor's time that the last step of the loop took
    outputs: list[tuple[int, PassOutput]] = field(default_factory=list)  # with the index of the input, in any order
    index: int = 0  # of the first of `inputs` among all inputs of the request
    error: BaseException | None = None
    wake: threading.Lock = field(default_factory=threading.Lock)  # held while the thread has to wait
    done: bool = False
    num_left_out: int = 0  # passes in a row that began while it waited and did not have a part of it

    def wait_again(self) -> None:
        """Makes it a request that is not done."""
        self.done = False
        self.wake.acquire(blocking=False)

    def resume(self) -> None:
        """Gives the loop the results, if it has asked yet, and lets it ask again or come to its end."""
        assert self.loop
        output = self.output if self.outputs else None
        self.outputs.clear()
        self.index = self.num_left_out = 0
        began = time.thread_time()
        try:
            self.inputs = list(self.loop.send(output) if output else next(self.loop))
        except StopIteration as end:
            self.is_over, self.result = True, end.value
        self.step_seconds = time.thread_time() - began
        for each in self.inputs:
            self.turn.add(each.table)

    @property
    def output(self) -> PassOutput:
        """The results of all inputs, in their order."""
        ordered = [output for _, output in sorted(self.outputs, key=lambda each: each[0])]
        if len(ordered) == 1:
            return ordered[0]
        return PassOutput(
            np.concatenate([each.logits for each in ordered]),
            np.concatenate([each.early for each in ordered], 1),
            np.concatenate([each.hidden for each in ordered]),
        )

    @property
    def is_chunk(self) -> bool:
        """Whether it reads a chunk of a prompt next."""
        table = next(iter(self.evicted), None)
        return table.num_prefilled > table.length if table else self.inputs[0].is_chunk

    @property
    def evicted(self) -> list[BlockTable]:
        """The sequences of the turn that have to be read again before anything else."""
        return self.turn.evicted(self.decoder.pool)

    def next_evicted(self) -> PassInput:
        """What has to be read again first: the rest of the prompt of a sequence, or else of its answer.

        A sequence of which nothing is read yet takes the blocks of another one with the same beginning, if any.
        """
        table = self.evicted[0]
        for other in self.turn.tables(table.pool):
            if not table.length and not other.is_evicted:
                table.adopt(other)
        in_prompt = table.length < table.num_prefilled
        ids = table.ids[table.length : table.num_prefilled if in_prompt else None]
        return PassInput(table, ids, is_chunk=in_prompt and len(ids) > 1, num_logits=0)

    @property
    def needed_tokens(self) -> int:
        """For how many tokens its turn needs room, in whole blocks. A block that several sequences share counts once.

        It may need still more later, because its sequences grow apart.
        """
        tables = self.turn.tables(self.decoder.pool)
        held = {block for table in tables for block in table.blocks}
        wanted = {id(table): blocks_for(len(table.ids)) for table in tables}
        for each in self.inputs:
            wanted[id(each.table)] = blocks_for(len(each.table.ids) + len(each.ids))
        return (len(held) + sum(max(0, wanted[id(table)] - len(table.blocks)) for table in tables)) * BLOCK_SIZE

    @property
    def num_tokens(self) -> int:
        """How many tokens it still reads."""
        return sum(len(each.ids) for each in self.inputs)


@dataclass(slots=True, eq=False)
class Part:
    """The part of a request that is in a pass."""

    request: Request
    input: PassInput
    index: int | None  # of the input; None for tokens that are read again, whose results nobody wants


class Room:
    """The rows that are left in a pass, of the graph and of its head."""

    def __init__(self, rows: int, num_early: int) -> None:
        self.rows = self._head_rows = self._max_rows = rows
        self._num_early = num_early

    def take(self, whole: PassInput, spared: int = 0) -> PassInput | None:
        """The beginning of these tokens that fits; None if nothing does. A chunk never has or leaves a single row."""
        heads = 1 + (self._num_early if whole.early else 0)
        rows = min(len(whole.ids), self.rows - spared)
        if whole.is_chunk:
            rows -= len(whole.ids) - rows == 1
            rows = rows if rows >= MIN_CHUNK else 0
        if rows <= 0:
            return None
        num_logits = min(rows, max(0, rows - (len(whole.ids) - whole.num_logits)))
        if num_logits * heads > self._head_rows and self._head_rows < self._max_rows:
            return None
        self.rows -= rows
        self._head_rows -= num_logits * heads
        if rows == len(whole.ids) and num_logits == whole.num_logits:  # as for most
            return whole
        return whole._replace(ids=whole.ids[:rows], num_logits=num_logits)
