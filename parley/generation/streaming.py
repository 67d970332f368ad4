"""Runs `generate` in a thread and yields its output. The iterator never hangs and can be stopped at any time."""

import contextlib
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, TextIteratorStreamer

from parley.events import FLUSH, HEARTBEAT, Answer, Beam, Delta, FinishReason
from parley.generation.detokenizer import CONTEXT_TOKENS, IncrementalDetokenizer
from parley.generation.reasoning_parser import ReasoningParser
from parley.models.reasoning_dialects import THINK, Dialect
from parley.strategies.decoders.beams import Hypothesis

MAX_FLUSH = 4 * FLUSH  # seconds; the longest time for which text is collected
FLUSH_TURNS = 2  # with more turns than this at a time, text is collected for longer
_END = object()
_running: set[int] = set()  # the turns whose text is read, by the ids of their streamers
_thread_local = threading.local()


class Interrupted(Exception):
    """Raised inside a forward pass when the visitor stopped the turn or the time limit is reached."""


class StopSignal:
    """Whether and why a running generation has to end: the visitor's Stop, the time limit, or its text."""

    def __init__(self, cancel: threading.Event, seconds: float) -> None:
        self._cancel = cancel
        self._deadline = time.monotonic() + seconds
        self.found: FinishReason | None = None  # what in the text ends it: a stop string, or a mark of its end

    @property
    def reason(self) -> FinishReason | None:
        """The reason to end; None while the generation may continue."""
        if self._cancel.is_set():
            return "stopped"
        if self.found:
            return self.found
        return "time" if time.monotonic() > self._deadline else None


class StopOnSignal(StoppingCriteria):
    """Ends `generate` after the current step once the signal has a reason."""

    def __init__(self, signal: StopSignal) -> None:
        self._signal = signal

    @property
    def is_met(self) -> bool:
        """Whether there is a reason to end."""
        return self._signal.reason is not None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """True for every sequence, shape (sequences,), once there is a reason to end."""
        return torch.full((input_ids.shape[0],), self.is_met, device=input_ids.device)


def stop_check() -> Callable[[], bool]:
    """Tells, in any thread, whether the turn of this thread was stopped or has reached its time limit."""
    signal = getattr(_thread_local, "signal", None)
    return lambda: signal is not None and signal.reason in ("stopped", "time")


@contextlib.contextmanager
def stops(signal: StopSignal) -> Iterator[None]:
    """Makes this the signal of the turn of this thread."""
    _thread_local.signal = signal
    try:
        yield
    finally:
        del _thread_local.signal


def raise_if_stopped() -> None:
    """Raises `Interrupted` if the turn of this thread was stopped or has reached its time limit."""
    if stop_check()():
        raise Interrupted


def special_marks(tokenizer: PreTrainedTokenizerBase, dialect: Dialect, others: Sequence[str] = ()) -> dict[int, str]:
    """The special tokens, by their ids, that are parts of the marks of `dialect`, or of these others.

    Decoding would leave them out.
    """
    marks = (*dialect.structure, *dialect.ends, *others)
    special = [
        *tokenizer.all_special_tokens,
        *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special),
    ]
    parts = {token for token in special if token and any(token in mark for mark in marks)}
    return {tokenizer.convert_tokens_to_ids(token): token for token in parts}


def _found(parser: ReasoningParser) -> FinishReason | None:
    return "stop string" if parser.stopped else "end" if parser.ended else None


def flush_seconds() -> float:
    """For how long text is collected before it is passed on, so that many turns at a time cost few events."""
    return min(MAX_FLUSH, FLUSH * max(1.0, len(_running) / FLUSH_TURNS))


class AnswerStreamer(TextIteratorStreamer):
    """A streamer for `generate` that yields `Delta`s when iterated.

    It differs from the streamer of transformers: every complete character is passed on at once; an exception in the
    thread is raised in the consumer; chunks are collected for `flush_seconds`; a waiting consumer gets heartbeats.
    An incomplete character at the end is dropped.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: Sequence[int],
        new_parser: Callable[[], ReasoningParser],
        signal: StopSignal,
        dialect: Dialect = THINK,
        *,
        on_token: Callable[[], None] = lambda: None,
        marks: Sequence[str] = (),
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self._on_token = on_token
        self._prompt_skipped = False
        self.ids: list[int] = []  # every generated token, including the end token
        self.first_token_at: float | None = None  # time.monotonic() of the first text or thought
        self.drafted = self.accepted = 0  # numbers of draft tokens
        self._hypotheses: Sequence[Hypothesis] = ()  # of a beam search, best first
        self._prompt_tail = list(prompt_ids[-CONTEXT_TOKENS:])
        self._detokenizer = IncrementalDetokenizer(tokenizer, self._prompt_tail)
        self._special_marks = special_marks(tokenizer, dialect, marks)
        self._new_parser = new_parser
        self._parser = new_parser()
        self._signal = signal
        self._closed = threading.Event()
        self.text_queue: queue.SimpleQueue[Any] = queue.SimpleQueue()  # cheaper than a `Queue`

    def put(self, value: torch.Tensor) -> None:
        """Takes token ids of shape (n,) or (1, n) from `generate`. The first call has the prompt, which is skipped."""
        if not self._prompt_skipped:
            self._prompt_skipped = True
            return
        self.take(value)

    def take(self, value: torch.Tensor | Sequence[int]) -> None:
        """Takes generated token ids, as a list or of shape (n,) or (1, n)."""
        for token in value.flatten().tolist() if isinstance(value, torch.Tensor) else value:
            self.ids.append(token)
            self._on_token()
            if chunk := self._step(self._detokenizer, token):
                self.on_finalized_text(chunk)

    def show(self, hypotheses: Sequence[Hypothesis]) -> None:
        """Takes the hypotheses of a beam search, best first. The text of the best one replaces the text so far."""
        self.ids, self._hypotheses = hypotheses[0].ids.tolist(), hypotheses
        self._on_token()
        self.first_token_at = self.first_token_at or time.monotonic()
        text, thought, found = self._parse(self.ids)
        self._signal.found = self._signal.found or found
        beams = tuple(Beam(self._parse(h.ids.tolist())[0], h.score, h.finished) for h in hypotheses)
        self.text_queue.put(Delta(text=text, thought=thought, replaces=True, beams=beams))

    def best(self, count: int, end: Callable[[Sequence[int]], FinishReason]) -> tuple[Answer, ...]:
        """So many hypotheses of a beam search, best first; fewer where it has not found as many different ones.

        None where one is asked for, which is the answer itself.

        `end` tells why one with these tokens ended, where its text does not.
        """
        found = dict[tuple[int, ...], Hypothesis]()
        for each in self._hypotheses if count > 1 else ():
            if math.isfinite(each.score):  # else a processor has forbidden it
                found.setdefault(tuple(each.ids.tolist()), each)
        made = list[Answer]()
        for ids, each in list(found.items())[:count]:
            text, thought, finish = self._parse(ids)
            beams = (Beam(text, each.score, each.finished),)
            made.append(Answer(text=text, thought=thought, beams=beams, finish=finish or end(ids), ids=ids))
        return tuple(made)

    def first_token_after(self, began: float) -> float | None:
        """The seconds from then to the first text or thought; None where there was none."""
        return None if self.first_token_at is None else self.first_token_at - began

    def tell(self, status: str) -> None:
        """Takes a short sentence about the progress before the answer begins."""
        self.text_queue.put(Delta(status=status))

    def count_draft(self, drafted: int, accepted: int) -> None:
        """Takes the numbers of drafted and of accepted tokens of one step."""
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + accepted

    def _step(self, detokenizer: IncrementalDetokenizer, token: int) -> str:
        """The text that `token` completes, if any."""
        return self._special_marks.get(token) or detokenizer.step(token)

    def _parse(self, ids: Sequence[int]) -> tuple[str, str, FinishReason | None]:
        """Text and thought of a whole answer, and what in its text ends it."""
        detokenizer, parser = IncrementalDetokenizer(self.tokenizer, self._prompt_tail), self._new_parser()
        text, thought = parser.feed("".join(self._step(detokenizer, token) for token in ids), last=True)
        return text, thought, _found(parser)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queues the part of `text` that may be shown."""
        shown, thought = self._parser.feed(text, last=stream_end)
        self._signal.found = self._signal.found or _found(self._parser)
        if shown or thought or self._parser.folded:
            self.first_token_at = self.first_token_at or time.monotonic()
            self.text_queue.put(Delta(text=shown, thought=thought, replaces=self._parser.folded))

    def end(self) -> None:
        """No-op: `generate` does not call `end` on every exit path; `close` always runs."""

    def close(self, error: BaseException | None = None) -> None:
        """Queues the text that was held back, and ends the iteration, with `error` if there is one."""
        self.on_finalized_text("", stream_end=True)
        self.text_queue.put(error or _END)
        self._closed.set()

    def __iter__(self) -> Iterator[Delta]:
        _running.add(id(self))
        try:
            yield from self._deltas()
        finally:
            _running.discard(id(self))

    def _deltas(self) -> Iterator[Delta]:
        flushed = 0.0
        while True:
            items = self._next_items(flushed)
            pending = _joined([item for item in items if isinstance(item, Delta)])
            if pending != Delta() or not items:  # no items: a heartbeat
                yield pending
                flushed = time.monotonic()
            if items and items[-1] is _END:
                return
            if items and isinstance(items[-1], BaseException):
                raise items[-1]

    def _next_items(self, flushed: float) -> list[Any]:
        """What is queued until it is time to pass it on; empty if for a while there is nothing.

        While it collects, the end alone wakes this thread: a wake-up for each token would hold up the decode loop.
        """
        try:
            items = [self.text_queue.get(timeout=HEARTBEAT)]
        except queue.Empty:
            return []
        if (left := flushed + flush_seconds() - time.monotonic()) > 0:
            self._closed.wait(left)
            with contextlib.suppress(queue.Empty):
                while True:
                    items.append(self.text_queue.get_nowait())
        return items


def _joined(deltas: Sequence[Delta]) -> Delta:
    """All of them in one; what comes before one that replaces the answer so far is dropped."""
    begin = max((i for i, each in enumerate(deltas) if each.replaces), default=0)
    first, *rest = deltas[begin:] or [Delta()]
    return replace(
        first,
        text=first.text + "".join(each.text for each in rest),
        thought=first.thought + "".join(each.thought for each in rest),
        status=next((each.status for each in reversed(rest) if each.status), first.status),
    )


def run(
    work: Callable[[], None], streamer: AnswerStreamer, signal: StopSignal, cancel: threading.Event
) -> Iterator[Delta]:
    """Runs `work` (a call of `generate` with that streamer) in a thread and yields its output.

    An exception in the thread is raised here. Closing the iterator sets `cancel` and does not wait for the thread.
    """

    def target() -> None:
        try:
            with stops(signal):
                work()
        except Interrupted:
            streamer.close()
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # frees keys and values before the next garbage collection
            streamer.close(error)
        else:
            streamer.close()

    threading.Thread(target=target, daemon=True, name="generate").start()
    finished = False
    try:
        yield from streamer
        finished = True
    finally:
        if not finished:
            cancel.set()
