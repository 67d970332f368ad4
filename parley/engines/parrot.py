"""Parrot, the echo engine of the tutorial: repeats the last message, a few characters at a time; needs no weights."""

import time
from collections.abc import Iterator

from parley.engines.base import Engine, TurnRequest
from parley.events import Delta, FinishReason, RunRecord, Usage
from parley.generation.reasoning_parser import ReasoningParser
from parley.models.capabilities import PARROT

CHARACTERS = 3  # of one piece: Parrot's token
PAUSE = 0.02  # seconds between pieces, so that one sees it stream


class Parrot(Engine):
    """Honours the message, max_new_tokens (in pieces) and the stop strings."""

    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """Yields the last question in pieces, or what is left of it; ends at once when the request is cancelled."""
        began = time.monotonic()
        messages, settings = request.messages, request.settings
        *_, said = (m.content for m in messages if m.role == "user")
        goes_on = messages[-1].role == "assistant"
        if goes_on:
            said = said[len(messages[-1].content) :]
        pieces = [said[i : i + CHARACTERS] for i in range(0, len(said), CHARACTERS)]
        allowed = pieces[: settings.max_new_tokens]
        text = ReasoningParser(settings.stop_strings, goes_on=goes_on)
        finish: FinishReason = "end" if len(allowed) == len(pieces) else "length"
        spoken = 0
        for piece in allowed:
            shown, thought = text.feed(piece)
            spoken += 1
            yield Delta(text=shown, thought=thought)
            if text.stopped or request.cancel.wait(PAUSE):
                finish = "stop string" if text.stopped else "stopped"
                break
        shown, thought = text.feed("", last=True)
        usage = Usage(len(said), spoken, 0.0, time.monotonic() - began)
        values = {"model": settings.model} | {name: getattr(settings, name) for name in sorted(PARROT.settings)}
        ran = RunRecord(said, {}, program="", messages=messages, values=values)
        yield Delta(text=shown, thought=thought, finish=finish, usage=usage, run_record=ran)
