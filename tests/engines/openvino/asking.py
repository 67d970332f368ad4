"""Engines are asked, and what they answer is looked at."""

import threading

from parley import strategies
from parley.engines.base import TurnRequest
from parley.events import Answer
from parley.messages import Message
from parley.settings import Settings
from tests.conftest import draft

SHORT = [Message("user", "Tell me a story about an owl.")]
LONG = [  # of more rows than a pass has
    Message("system", "Answer like a pirate, and be brief."),
    Message("user", "My name is Maya and I sail a ship from Lisbon to the far north. " * 4),
    Message("assistant", "Ahoy, Maya! The far north is cold, and the nights there are long."),
    Message("user", "Repeat after me: red tea, red tea, green tea, red tea. Then count to nine."),
]


def deltas(engine, messages, cancel=None, session="", helper=None, **values):
    """What the engine yields, by greedy search unless `values` say otherwise; `helper` drafts tokens."""
    chosen = Settings.check({"strategy": "greedy", "seed": 5, "max_new_tokens": 16, **values})
    if strategies.find(chosen.strategy).drafts:
        helper = helper or draft()
    return engine.stream(TurnRequest.of(messages, chosen, cancel or threading.Event(), helper, session))


def answer(engine, messages, *args, **values):
    """The whole answer."""
    return sum(deltas(engine, messages, *args, **values), Answer())


def ids(engine, session):
    """The tokens of that session's last turn, prompt and answer."""
    return list(engine.prefix_cache.sequence(session))


def has_read_answer(engine, session):
    """Whether the session's last answer was read again, to its last token."""
    kept = engine.prefix_cache.session(session)
    return kept is not None and len(kept.sequence) - kept.table.length < 2 and not engine.prefix_cache.is_reading
