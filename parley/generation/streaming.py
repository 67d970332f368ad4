"""`generate` in a thread, read as a plain iterator that never hangs and that can be stopped at any moment."""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase, StoppingCriteria, TextIteratorStreamer

from parley.events import FLUSH, HEARTBEAT, Beam, Delta, FinishReason
from parley.generation.reasoning_parser import THINK_CLOSE, THINK_OPEN, ReasoningParser
from parley.strategies.decoders.beams import Hypothesis

_END = object()
_here = threading.local()


class Interrupted(Exception):
    """Raised inside a forward pass when the turn was stopped or its time is up."""


class StopSignal:
    """Why and when a running generation has to end: the reader's Stop, the wall clock, a stop string."""

    def __init__(self, cancel: threading.Event, seconds: float) -> None:
        self._cancel = cancel
        self._deadline = time.monotonic() + seconds
        self.stop_string = False

    @property
    def reason(self) -> FinishReason | None:
        """None while the generation may go on."""
        if self._cancel.is_set():
            return "stopped"
        if self.stop_string:
            return "stop string"
        return "time" if time.monotonic() > self._deadline else None


class StopOnSignal(StoppingCriteria):
    """Ends `generate` cleanly after the step during which there came a reason to end."""

    def __init__(self, signal: StopSignal) -> None:
        self._signal = signal

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """True for every row, shape (batch,), once there is a reason to end."""
        return torch.full((input_ids.shape[0],), self._signal.reason is not None, device=input_ids.device)


def raise_if_stopped() -> None:
    """Raises `Interrupted` in the thread of a turn that was stopped or whose time is up."""
    signal = getattr(_here, "signal", None)
    if signal is not None and signal.reason in ("stopped", "time"):
        raise Interrupted


class AnswerStreamer(TextIteratorStreamer):
    """The stock streamer, but: every complete character comes at once and exactly, an exception in the thread reaches
    the reader, pieces are gathered for `FLUSH` seconds, and a waiting reader gets heartbeats.

    Iterating yields `Delta`s. A character that the last token leaves incomplete is dropped.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: Sequence[int],
        new_text: Callable[[], ReasoningParser],
        signal: StopSignal,
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self._prompt_taken = False
        self.ids: list[int] = []  # every generated token, the closing one included
        self.first_token_at: float | None = None  # time.monotonic() of the first text or thought
        self.drafted = self.accepted = 0  # guesses of speculative decoding
        self._tail = list(prompt_ids[-8:])
        self._decode = DecodeStream(ids=self._tail, skip_special_tokens=True)
        specials = {tokenizer.convert_tokens_to_ids(mark): mark for mark in (THINK_OPEN, THINK_CLOSE)}
        self._marks = {i: mark for i, mark in specials.items() if i in tokenizer.all_special_ids}
        self._new_text = new_text
        self._text = new_text()
        self._signal = signal

    def put(self, value: torch.Tensor) -> None:
        """Takes token ids of shape (n,) or (1, n) from `generate`; the first call brings the prompt."""
        if not self._prompt_taken:
            self._prompt_taken = True
            return
        self.take(value)

    def take(self, value: torch.Tensor) -> None:
        """Takes generated token ids of shape (n,) or (1, n)."""
        for token in value.flatten().tolist():
            self.ids.append(token)
            if piece := self._piece(self._decode, token):
                self.on_finalized_text(piece)

    def show(self, hypotheses: Sequence[Hypothesis]) -> None:
        """Takes what a beam search considers, the best first; its text replaces all that was shown before."""
        self.ids = hypotheses[0].ids.tolist()
        self.first_token_at = self.first_token_at or time.monotonic()
        text, thought, stopped = self._read(self.ids)
        if stopped:
            self._signal.stop_string = True
        beams = tuple(Beam(self._read(h.ids.tolist())[0], h.score, h.finished) for h in hypotheses)
        self.text_queue.put(Delta(text=text, thought=thought, replaces=True, beams=beams))

    def tell(self, status: str) -> None:
        """Takes a short sentence about what is happening before the answer begins."""
        self.text_queue.put(Delta(status=status))

    def count_draft(self, drafted: int, accepted: int) -> None:
        """Takes how many tokens one step of speculative decoding guessed, and how many were right."""
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + accepted

    def _piece(self, decode: DecodeStream, token: int) -> str | None:
        return self._marks.get(token) or decode.step(self.tokenizer.backend_tokenizer, token)

    def _read(self, ids: Sequence[int]) -> tuple[str, str, bool]:
        """Text and thought of a whole answer, and whether a stop string ends it."""
        decode, reader = DecodeStream(ids=self._tail, skip_special_tokens=True), self._new_text()
        text, thought = reader.feed("".join(self._piece(decode, token) or "" for token in ids), last=True)
        return text, thought, reader.stopped

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queues what of `text` may be shown."""
        shown, thought = self._text.feed(text, last=stream_end)
        if self._text.stopped:
            self._signal.stop_string = True
        if shown or thought:
            self.first_token_at = self.first_token_at or time.monotonic()
            self.text_queue.put(Delta(text=shown, thought=thought))

    def end(self) -> None:
        """Does nothing: `generate` calls it on some roads only; `close` is called on all."""

    def close(self, error: BaseException | None = None) -> None:
        """Gives out what was held back and ends the iteration, with the error if there is one."""
        self.on_finalized_text("", stream_end=True)
        self.text_queue.put(error or _END)

    def __iter__(self) -> Iterator[Delta]:
        pending, flushed = Delta(), 0.0
        while True:
            wait = flushed + FLUSH - time.monotonic() if pending != Delta() else HEARTBEAT
            try:
                item = self.text_queue.get(timeout=max(wait, 0))
            except queue.Empty:
                item = None
            if isinstance(item, Delta):
                pending = (
                    item
                    if item.replaces
                    else replace(
                        pending,
                        text=pending.text + item.text,
                        thought=pending.thought + item.thought,
                        status=item.status or pending.status,
                    )
                )
                if time.monotonic() < flushed + FLUSH:
                    continue
            if item is None or pending != Delta():
                yield pending
                pending, flushed = Delta(), time.monotonic()
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item


def run(
    work: Callable[[], None], streamer: AnswerStreamer, signal: StopSignal, cancel: threading.Event
) -> Iterator[Delta]:
    """Runs `work` (a call of `generate` with that streamer) in a thread and yields what it makes.

    An exception in the thread is raised here. Closing the iterator sets `cancel`; it never waits for the thread.
    """

    def target() -> None:
        _here.signal = signal
        try:
            work()
        except Interrupted:
            streamer.close()
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # else keys and values live on until garbage is collected
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
