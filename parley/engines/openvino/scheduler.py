"""Gathers what all turns of a model read into ragged passes over its pool of blocks (continuous batching).

Each turn runs its decode loop in its own thread and calls `Scheduler.run`, which returns its logits. So every strategy
is batched, and none knows of it. Passes are made up anew each time, as in Orca (Yu et al., 2022,
https://www.usenix.org/conference/osdi22/presentation/yu). By the rules of `batch_invariance` each turn gets the logits
that it would get alone, bit for bit.

No thread is kept for this: one of the waiting threads, the leader, runs the passes until its own request is done, and
then makes another one the leader. A turn that is alone leads itself, and waits for nobody.

A decode loop that is a generator (`Scheduler.drive`) needs no thread for a step: the leader goes on with all of them
after each pass. Sixteen threads that choose a token each would hand Python's lock to each other for longer than they
need to choose. A loop whose step takes long is left to its own thread.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import torch

from parley.engines import fork_gate
from parley.engines.openvino import turns
from parley.engines.openvino.batch import DecodeLoop, Part, Request, Room
from parley.engines.openvino.decoder import Decoder, PassInput, PassOutput
from parley.engines.openvino.paged_kv import BLOCK_SIZE, BlockPool, OutOfBlocks, blocks_for
from parley.engines.openvino.turns import RunningTurn
from parley.generation.streaming import Interrupted, stop_check

# While chunks of prompts wait, they get a part of each pass, whoever else wants it: one of so many. Half of it belongs
# to the prompt that waits longest, so that short prompts cannot hold up a long one for ever.
CHUNK_SHARE = 4
# How long a pass waits for turns that are choosing their next token, as a share of the time of the last pass.
CHOOSING_SHARE = 0.6
# A decode loop whose last step took more of the processor's time than this goes on in its own thread, beside others.
MAX_STEP_SECONDS = 0.004
POLL_SECONDS = 0.05  # how often a leader that can run no pass looks whether a turn was stopped
REFUSAL_POLLS = 20  # so many in a row before a turn is refused, because blocks may be released a moment later
_passes = threading.Lock()  # passes of all models use all cores, so they run one after the other


class Scheduler:
    """Runs the passes of one pool of blocks: those of a model's graph, and of the graph of its first layers."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._changed = threading.Condition()
        self._waiting: list[Request] = []  # in the order of arrival
        self._choosing: set[RunningTurn] = set()  # turns that will soon ask again
        self._has_leader = False
        self._last_pass_seconds = 0.0
        self._num_polls = 0  # since the last pass
        self.max_left_out = 0  # the most passes in a row for which a decode loop had to wait after the one that ran
        self.num_paused = 0  # how often a turn gave its blocks to an older one
        self.pass_seconds = 0.0  # the sum over all passes

    @property
    def pool(self) -> BlockPool:
        """The blocks of all sequences."""
        return self._decoder.pool

    @property
    def max_rows(self) -> int:
        """The maximum number of rows of a pass."""
        return self._decoder.max_rows

    @property
    def num_waiting(self) -> int:
        """How many threads wait for the results of passes."""
        return len(self._waiting)

    def run(self, inputs: Sequence[PassInput], decoder: Decoder | None = None) -> PassOutput:
        """Reads these tokens, in one pass or in several, and returns the results in the order of `inputs`.

        `decoder` is another graph over the same pool. Raises `Interrupted` if the turn of this thread was stopped, and
        `OutOfBlocks` if it has all the memory and needs more. The tables hold what was read until then.
        """
        turn = turns.current()
        request = Request(turn, decoder or self._decoder, list(inputs), stop_check())
        for each in inputs:
            turn.add(each.table)
        turn.asks(self)
        self._wait_for(request)
        return request.output

    def drive(self, loop: DecodeLoop) -> Any:
        """Runs a decode loop to its end, and returns what it returns. Raises what it raises, and what `run` raises.

        The steps of the loop may run in the thread of another turn, but only one at a time.
        """
        turn = turns.current()
        request = Request(turn, self._decoder, [], stop_check(), loop)
        turn.asks(self)
        try:
            request.resume()
            while not request.is_over:
                self._wait_for(request)
                if not request.is_over:
                    request.resume()
        finally:
            loop.close()
        return request.result

    def _wait_for(self, request: Request) -> None:
        """Returns when the request is done, because its results are there or its loop is over."""
        with self._changed:
            request.wait_again()
            self._waiting.append(request)
            self._choosing.discard(request.turn)
            leads, self._has_leader = not self._has_leader, True
            if not leads and not self._choosing:  # else the leader would wake for each turn, and wait on
                self._changed.notify_all()
        with fork_gate.opened():
            if not leads:
                request.wake.acquire()
            if not request.done:
                self._lead(request)
        request.inputs.clear()
        error, request.error = request.error, None
        if error is None:
            return
        try:
            raise error
        finally:
            del error  # its traceback has this frame: a cycle would hold the blocks until the next garbage collection

    def leave(self, turn: RunningTurn) -> None:
        """Notes that the turn is over, so that no pass waits for it."""
        with self._changed:
            self._choosing.discard(turn)
            self._changed.notify_all()

    def _lead(self, own: Request) -> None:
        """Runs passes until `own` is done; then another waiting thread leads."""
        try:
            while not own.done:
                self._gather()
                self._end_stopped()
                if own.done:
                    return
                if parts := self._compose():
                    self._run(parts)
                else:
                    self._wait_for_blocks()
        except BaseException as error:
            self._finish([own], error)
        finally:
            with self._changed:
                if self._waiting:
                    self._waiting[0].wake.release()
                else:
                    self._has_leader = False

    def _gather(self) -> None:
        """Waits a moment for the turns that are choosing a token, because they will want to be in the next pass."""
        deadline = time.perf_counter() + CHOOSING_SHARE * self._last_pass_seconds
        with self._changed:
            while self._choosing and (left := deadline - time.perf_counter()) > 0:
                self._changed.wait(left)
            self._choosing.clear()

    def _end_stopped(self) -> None:
        for each in [each for each in self._waiting if each.stopped()]:
            self._finish([each], Interrupted())

    def _finish(self, requests: Sequence[Request], error: BaseException | None = None) -> None:
        """Lets their threads go on. All at once: a thread that goes on would hold up the others."""
        with self._changed:
            requests = [each for each in requests if not each.done]
            for each in requests:
                each.done, each.error = True, error
                self._waiting.remove(each)
                if not each.turn.is_background and not each.is_over:
                    self._choosing.add(each.turn)
        for each in requests:
            each.wake.release()

    def _compose(self) -> list[Part]:
        """The next pass, of the graph that is asked first and can run. Blocks for all of it are reserved."""
        waiting = sorted(self._waiting, key=lambda request: request.turn.is_background)
        decoders = dict.fromkeys(map(self._next_decoder, waiting))
        passes = (self._compose_for(decoder, waiting) for decoder in decoders)
        return next(filter(None, passes), [])

    def _compose_for(self, decoder: Decoder, waiting: Sequence[Request]) -> list[Part]:
        """The rows of decode loops first, those with the fewest drafts before others, then chunks of prompts."""
        waiting = [each for each in waiting if self._next_decoder(each) is decoder and self._may_run(each)]
        chunks = [each for each in waiting if each.is_chunk]
        decoding = [each for each in waiting if not each.is_chunk]
        decoding.sort(key=lambda request: (-request.num_left_out, request.num_tokens))
        room = Room(self.max_rows, len(decoder.early))
        share = self.max_rows // CHUNK_SHARE if chunks else 0
        parts = [part for each in decoding for part in self._parts(each, room, share)]
        if chunks:
            half = room.rows // 2 if len(chunks) > 1 else 0
            parts += self._parts(chunks[0], room, half)
            for each in sorted(chunks[1:], key=lambda request: request.num_tokens):
                parts += self._parts(each, room)
        # A turn whose part was already in this pass may have given up its blocks since.
        parts = [part for part in parts if part.input.table.is_reserved(len(part.input.ids))]
        self._count_left_out(decoding, parts)
        return parts

    def _count_left_out(self, decoding: Sequence[Request], parts: Sequence[Part]) -> None:
        included = {id(part.request) for part in parts}
        for each in decoding:
            each.num_left_out = 0 if id(each) in included else each.num_left_out + 1
            self.max_left_out = max(self.max_left_out, each.num_left_out)

    def _next_decoder(self, request: Request) -> Decoder:
        """The graph that reads on for this request: the whole one where its tokens have to be read again."""
        return self._decoder if request.evicted else request.decoder

    def _may_run(self, request: Request) -> bool:
        """Whether the request need not wait for blocks to read its sequences again."""
        evicted, pool = request.evicted, self.pool
        if not evicted:
            return True
        others = [each.turn for each in self._waiting if each.turn is not request.turn]
        needed = sum(blocks_for(len(table.ids) + BLOCK_SIZE) - len(table.blocks) for table in evicted) + len(others)
        while pool.num_free < needed and pool.reclaim():
            pass
        return pool.num_free >= needed or not any(each.tables(pool) and not _is_paused(each, pool) for each in others)

    def _parts(self, request: Request, room: Room, spared: int = 0) -> list[Part]:
        """As much of the request as there is room and memory for, `spared` rows left free."""
        parts: list[Part] = []
        if request.evicted:
            piece = room.take(request.next_evicted(), spared)
            return [Part(request, piece, None)] if piece and self._reserve(request, piece) else []
        tables: set[int] = set()
        for offset, each in enumerate(request.inputs):
            if id(each.table) in tables:  # two inputs of one sequence are read one after the other
                break
            tables.add(id(each.table))
            piece = room.take(each, spared)
            if piece is None or not self._reserve(request, piece):
                break
            parts.append(Part(request, piece, request.index + offset))
            if len(piece.ids) < len(each.ids):
                break
        return parts

    def _reserve(self, request: Request, piece: PassInput) -> bool:
        """Reserves blocks; where none are left, younger turns that wait give up theirs. Whether that was enough."""
        while True:
            try:
                piece.table.reserve(len(piece.ids))
            except OutOfBlocks:
                if not self._pause_youngest(request):
                    return False
            else:
                return True

    def _pause_youngest(self, request: Request) -> bool:
        """Takes the blocks of the youngest turn that waits and is younger than that of this request."""
        pool = self.pool
        younger = [
            each.turn
            for each in self._waiting
            if each.turn.order > request.turn.order
            and not each.turn.is_background
            and any(table.blocks for table in each.turn.tables(pool))
        ]
        if not younger:
            return False
        max(younger, key=lambda turn: turn.order).evict(pool)
        self.num_paused += 1
        return True

    def _run(self, parts: list[Part]) -> None:
        """Runs a pass. Empties the list, because the traceback of an error may keep it, and so the blocks."""
        requests = list(dict.fromkeys(part.request for part in parts))
        decoder, self._num_polls = self._next_decoder(requests[0]), 0
        began = time.perf_counter()
        try:
            with _passes:
                output = decoder.run([part.input for part in parts])
        except Exception as error:
            if len(requests) == 1:
                self._finish(requests, error)
            else:  # only the one at fault shall fail
                for each in [[part for part in parts if part.request is request] for request in requests]:
                    self._run(each)
        else:
            self._last_pass_seconds = time.perf_counter() - began
            self.pass_seconds += self._last_pass_seconds
            self._distribute(parts, output)
        finally:
            parts.clear()

    def _distribute(self, parts: Sequence[Part], output: PassOutput) -> None:
        row = logit = early = 0
        for part in parts:
            piece, request = part.input, part.request
            rows, logits = len(piece.ids), piece.num_logits
            earlies = logits if piece.early else 0
            if part.index is not None:
                taken = PassOutput(
                    output.logits[logit : logit + logits],
                    output.early[:, early : early + earlies],
                    output.hidden[row : row + rows],
                )
                request.outputs.append((part.index, taken))
                whole = request.inputs[part.index - request.index]
                request.inputs[part.index - request.index] = whole._replace(ids=whole.ids[rows:])
            row, logit, early = row + rows, logit + logits, early + earlies
        for request in dict.fromkeys(part.request for part in parts):
            while request.inputs and not request.inputs[0].ids:
                del request.inputs[0]
                request.index += 1
        self._go_on([each for each in dict.fromkeys(part.request for part in parts) if not each.inputs])

    def _go_on(self, requests: Sequence[Request]) -> None:
        """Takes a step of the decode loops among these, whose results are there. Other threads go on by themselves."""
        loops = [each for each in requests if each.loop and each.step_seconds <= MAX_STEP_SECONDS]
        self._finish([each for each in requests if each not in loops])
        if not loops:
            return
        with fork_gate.held(), torch.inference_mode():
            for each in loops:
                try:
                    with turns.stand_in(each.turn):
                        each.resume()
                except BaseException as error:  # it belongs to that turn
                    self._finish([each], error)
        self._finish([each for each in loops if each.is_over])

    def _wait_for_blocks(self) -> None:
        """Nobody could read on. The oldest turn is refused if for a while no other one holds blocks to give it."""
        with self._changed:
            oldest = min(self._waiting, key=lambda request: request.turn.order)
            others = {*turns.TURNS.running_turns, *(each.turn for each in self._waiting)} - {oldest.turn}
            self._num_polls += 1
            if self._num_polls < REFUSAL_POLLS or any(t.blocks for turn in others for t in turn.tables(self.pool)):
                self._changed.wait(POLL_SECONDS)
                return
            self._num_polls = 0
        self._finish([oldest], OutOfBlocks(oldest.needed_tokens, (self.pool.num_blocks - 1) * BLOCK_SIZE))


def _is_paused(turn: RunningTurn, pool: BlockPool) -> bool:
    return any(table.is_evicted for table in turn.tables(pool))
