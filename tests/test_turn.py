"""One turn: what it leaves behind."""

import threading

from parley import turn
from parley.engines.base import Answer
from parley.engines.pool import ModelPool
from parley.messages import Message
from parley.settings import Settings


def test_the_thread_that_loads_a_model_ends_with_the_loading(monkeypatch):
    monkeypatch.setattr(turn, "POOL", ModelPool())
    threads = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (threads.append(self), start(self))[1])
    answer = sum(turn.reply("a run", [Message("user", "Hi")], Settings.check({"max_new_tokens": 1})), Answer())
    loaders = [thread for thread in threads if thread.name.startswith("load")]
    for thread in loaders:
        thread.join(timeout=10)
    assert answer.usage.new_tokens == 1
    assert loaders and not any(thread.is_alive() for thread in loaders)
