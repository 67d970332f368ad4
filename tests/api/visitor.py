"""A visitor who asks over the API as a program does, and what they should be told."""

import json
import threading

from parley.serving import turn

OURS = ("turn", "generate", "read-answer", "load")  # the names of threads; those of the web server wait for more work


def is_at_rest(inside):
    """Whether nobody is answered, and no thread of ours is left."""
    names = [each.name for each in threading.enumerate()]
    return not turn.running() and not inside.waiting() and not any(name.startswith(OURS) for name in names)


def question(number):
    """It carries a nonce, which the answer says again."""
    return f"Repeat after me: number {number} and {7919 * number % 1000}."


def values(number):
    strategy = ("greedy", "sampling", "beams", "prompt_lookup")[number % 4]
    return {"strategy": strategy, "seed": number, "max_new_tokens": 24}


def visit(http, number, leaves, model="budgie"):
    """What a visitor reads to the end; None for one who hangs up after the first text."""
    body = {"message": question(number), "model": model, "messages": [], **values(number)}
    event = http.post("/gradio_api/call/v2/chat", json=body).json()["event_id"]
    with http.stream("GET", f"/gradio_api/call/chat/{event}") as stream:
        kind = last = None
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            kind = value if name == "event" else kind
            if name == "data" and kind in ("generating", "complete") and value != "null":
                last = json.loads(value)[0]
                if leaves:
                    return None  # which closes the connection
            assert kind != "error", value
        assert kind == "complete"
        return last
