"""How long a reader waits: `python -m benchmarks.start` times the start of the app and its very first answer.

Each round starts `python app.py` anew, offline, and measures from there until the page answers, then from sending the
first message until the first piece of Budgie's answer. The client is connected before, as a browser is.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from unittest import mock

from gradio_client import Client


def measure() -> tuple[float, float]:
    """One round: seconds until the page answers, and seconds from sending to the first piece."""
    with mock.patch.dict(os.environ):  # tests leave one thread to what they start; an app that is timed has all
        from tests.conftest import Space
    space = Space(MODEL_IDS="budgie,parrot")
    try:
        client = Client(space.url, verbose=False)
        sent = time.monotonic()
        next(iter(client.submit("Hello, who are you?", api_name="/chat")))
        return space.seconds_to_answer, time.monotonic() - sent
    finally:
        space.close()


def line(name: str, seconds: Sequence[float]) -> str:
    """The median and the spread of some durations."""
    return f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    starts, firsts = zip(*(measure() for _ in range(parser.parse_args().rounds)), strict=True)
    print(line("page answers after", starts))
    print(line("first piece after", firsts))


if __name__ == "__main__":
    main()
