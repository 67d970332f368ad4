"""Faults of a server that runs a model."""

from contextlib import contextmanager

from tests.faults.world import ask

OWNER = "The owner of this app has to "
UNREADABLE = "The server of {} sent something that cannot be read. Press Retry, or choose another model."
# name, the model of the faulty server, how, sentence, whether text had come
ROWS = [
    (
        "key refused",
        "401",
        "It answers 401.",
        f"The server of 401 does not accept this app's key. {OWNER}change REMOTE_API_KEY.",
        False,
    ),
    (
        "too many requests",
        "429 for seconds",
        "It answers 429 and names 7 seconds.",
        "The server of 429 for seconds gets too many requests now. Press Retry in 7 seconds.",
        False,
    ),
    (
        "fault of its own",
        "500",
        "It answers 500.",
        "The server of 500 fails with error 500. Press Retry in a moment, or choose another model.",
        False,
    ),
    (
        "overloaded",
        "503",
        "It answers 503.",
        "The server of 503 is starting or overloaded. Press Retry in a moment.",
        False,
    ),
    (
        "another page",
        "html",
        "It answers with a page that asks to log in.",
        f"The server of html sends no chat completions. {OWNER}check REMOTE_BASE_URL.",
        False,
    ),
    (
        "hung up",
        "hangs up",
        "It closes the connection without a word.",
        "The server of hangs up does not answer. Press Retry in a moment, or choose another model.",
        False,
    ),
    (
        "cut",
        "cut",
        "The connection breaks in the middle of the answer.",
        "The server of cut broke off in the middle of the answer. Press Retry.",
        True,
    ),
    ("garbled", "garbled", "It sends no JSON in the middle of the answer.", UNREADABLE.format("garbled"), True),
    (
        "no end",
        "an end without a reason",
        "It ends the stream without a reason.",
        "The server of an end without a reason broke off in the middle of the answer. Press Retry.",
        True,
    ),
    (
        "flood",
        "flood",
        "It sends far more than was asked for.",
        "The server of flood sent far more than it was asked for, and was cut off. …",
        True,
    ),
    (
        "one endless line",
        "one endless line",
        "It sends a line that never ends.",
        "The server of one endless line sent far more than it was asked for, and was cut off. …",
        True,
    ),
]


def fault(model):
    """A turn of that model, and the next of one that is sound."""

    @contextmanager
    def happens(world):
        with world.remote(model, "sound"):
            yield lambda: ask(world.inside.url, model), lambda: ask(world.inside.url, "sound")

    return happens
