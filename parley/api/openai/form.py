"""How answers are written in the form of the OpenAI API, whole and in pieces."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from parley.api.generate import usage as token_counts
from parley.api.turns.answer_tokens import AnswerToken
from parley.events import Answer
from parley.messages import ToolCall

FINISH_REASONS = {"end": "stop", "stop string": "stop", "stopped": "stop"}  # all others: something was cut off


def finish_reason(answer: Answer, calls: Sequence[ToolCall] = ()) -> str | None:
    """Why an answer ended: stop, length or tool_calls; None while it goes on."""
    if answer.finish == "end" and calls:
        return "tool_calls"
    return answer.finish and FINISH_REASONS.get(answer.finish, "length")


def usage(answers: Sequence[Answer], prompts: int = 1) -> dict[str, Any]:
    """The tokens of all answers to these prompts, each of which has as many answers."""
    each = len(answers) // prompts
    counts = [token_counts(answers[i * each : (i + 1) * each]) for i in range(prompts)]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    cached = total.pop("cached_tokens")
    return total | {
        "total_tokens": total["prompt_tokens"] + total["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Envelope:
    """What all pieces of one answer have in common."""

    def __init__(self, prefix: str, kind: str, model: str) -> None:
        self._values = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def wrap(self, answers: Sequence[Answer], choices: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """These choices in the envelope, with the fingerprint of what computes them once it is known."""
        origin = next((each.origin for each in answers if each.origin), None)
        fingerprint = (origin.fingerprint or None) if origin else None
        return self._values | {"system_fingerprint": fingerprint, "choices": list(choices)} | more


def chat_logprobs(tokens: Sequence[AnswerToken], count: int, processed: bool) -> dict[str, Any]:
    """The tokens of a text in the form of chat completions."""
    content = [
        _token(each.piece, each.logprob(processed))
        | {"top_logprobs": [_token(each.bytes_of(other), value) for other, value in each.candidates(count, processed)]}
        for each in tokens
    ]
    return {"content": content, "refusal": None}


def _token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}


def tool_calls(calls: Sequence[ToolCall], first: int = 0, *, numbered: bool = False) -> list[dict[str, Any]]:
    """The calls in the form of chat completions, for a stream with their numbers, from `first` on."""
    return [
        ({"index": first + i} if numbered else {})
        | {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
        for i, each in enumerate(calls)
    ]
