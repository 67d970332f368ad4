"""Parrot, the echo engine of the tutorial. It repeats the last message, chunk by chunk, and needs no weights."""

import time
from collections.abc import Iterator

from parley.config import MAX_TURN_SECONDS
from parley.engines.base import Engine, TurnRequest
from parley.events import Delta, FinishReason, RunRecord, Usage
from parley.generation.reasoning_parser import ReasoningParser
from parley.models.capabilities import PARROT

CHUNK_CHARACTERS = 3  # a chunk is Parrot's token
PAUSE_SECONDS = 0.02  # between chunks, so that the stream is visible


class Parrot(Engine):
    """Uses the last question, max_new_tokens (counted in chunks) and the stop strings; ignores the other settings."""

    def __init__(self, turn_seconds: float = MAX_TURN_SECONDS.default) -> None:
        self._turn_seconds = turn_seconds

    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """Yields the last question in chunks, or the rest of it after a partial answer; ends when cancelled."""
        began = time.monotonic()
        messages, settings = request.messages, request.settings
        *_, question = (m.content for m in messages if m.role == "user")
        continues = messages[-1].role == "assistant"
        if continues:
            question = question[len(messages[-1].content) :]
        chunks = [question[i : i + CHUNK_CHARACTERS] for i in range(0, len(question), CHUNK_CHARACTERS)]
        allowed = chunks[: settings.max_new_tokens]
        parser = ReasoningParser(settings.stop_strings, goes_on=continues, folds=False)
        finish: FinishReason = "end" if len(allowed) == len(chunks) else "length"
        num_sent = 0
        for chunk in allowed:
            text, thought = parser.feed(chunk)
            num_sent += 1
            yield Delta(text=text, thought=thought)
            if parser.stopped or request.cancel.wait(PAUSE_SECONDS):
                finish = "stop string" if parser.stopped else "stopped"
                break
            if time.monotonic() >= began + self._turn_seconds:
                finish = "time"
                break
        text, thought = parser.feed("", last=True)
        usage = Usage(len(question), num_sent, 0.0, time.monotonic() - began)
        values = {"model": settings.model} | {name: getattr(settings, name) for name in sorted(PARROT.settings)}
        record = RunRecord(question, {}, program="", messages=messages, values=values)
        yield Delta(text=text, thought=thought, finish=finish, usage=usage, run_record=record)
