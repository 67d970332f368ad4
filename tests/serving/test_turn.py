"""One turn: what it leaves behind, and what of it crosses to another process and back."""

import io
import os
import pickle
import threading

import pytest

from parley.errors import BadConversation, ModelUnavailable
from parley.events import Answer
from parley.messages import Message
from parley.serving import turn
from parley.serving.model_pool import ModelPool
from parley.settings import Settings
from tests.conftest import Clock
from tests.strategies.loops import LOOPS, WATERMARKS


def test_the_thread_that_loads_a_model_ends_with_the_loading(monkeypatch):
    monkeypatch.setattr(turn, "POOL", ModelPool())
    threads = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (threads.append(self), start(self))[1])
    answer = sum(turn.reply("a run", [Message("user", "Hi")], Settings.check({"max_new_tokens": 1})), Answer())
    loaders = [thread for thread in threads if thread.name.startswith("load")]
    for thread in loaders:
        thread.join(90)
    assert answer.usage.new_tokens == 1
    assert loaders and not any(thread.is_alive() for thread in loaders)


QUESTION = [Message("user", "Tell me a story about an owl.")]


def in_worker(run_id="a run", messages=QUESTION, seconds=60, **values):
    values = {"strategy": "greedy", "model": "budgie"} | values
    return turn.reply_in_worker(run_id, messages, Settings.check(values), "", seconds)


class Reader(pickle.Unpickler):
    """Reads a pickled value, and notes where the classes come from that it is made of."""

    def __init__(self, value):
        super().__init__(io.BytesIO(pickle.dumps(value)))
        self.modules = set()

    def find_class(self, module, name):
        self.modules.add(module)
        return super().find_class(module, name)


@pytest.mark.parametrize("strategy", [*LOOPS, *WATERMARKS])
def test_all_that_crosses_the_process_line_is_plain_data(strategy):
    answer = list(in_worker(strategy=strategy, max_new_tokens=3))
    assert answer[-1].usage.new_tokens and answer[-1].run_record
    settings = Settings.check({"strategy": strategy})
    for value in (*answer, ("a run", QUESTION, settings, "", 60)):
        reader = Reader(value)
        assert reader.load() == value
        assert reader.modules <= {"parley.events", "parley.messages", "parley.settings"}
    assert not turn.running()


def test_what_the_reader_can_mend_is_an_item_and_no_exception():
    *_, refusal = in_worker(messages=[Message("user", "word " * 3000)])
    assert isinstance(refusal, BadConversation)
    assert str(pickle.loads(pickle.dumps(refusal))).startswith("This message needs")
    assert not turn.running()


def test_a_model_that_could_not_be_placed_is_refused_before_a_gpu_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.setenv("MODEL_IDS", str(tmp_path))
    monkeypatch.setattr(turn, "POOL", ModelPool())
    turn.POOL.preload([turn.registry.find("")])
    asked = []
    with pytest.raises(ModelUnavailable, match="no weights in the safetensors format"):
        list(turn.reply_on_zerogpu(lambda *given: asked.append(given) or (), "a run", QUESTION, Settings.check({})))
    assert not asked


def test_a_turn_ends_by_itself_before_its_gpu_time_is_over(endless_folder, monkeypatch):
    monkeypatch.setenv("MODEL_IDS", endless_folder)
    monkeypatch.setattr(turn, "POOL", ModelPool())
    turn.POOL.preload([turn.registry.find("")])
    clock = Clock()
    monkeypatch.setattr(turn, "time", clock)
    for delta in in_worker(model="", max_new_tokens=4000, seconds=60):
        if delta.text:
            clock.ahead = 60 - turn.STOP_MARGIN_SECONDS / 2
    assert delta.finish == "time" and delta.usage.new_tokens < 4000


def test_a_turn_is_stopped_from_the_process_that_it_was_forked_from():
    """The board is written on here, and read in a real child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)  # until the parent has stopped the turn
        os._exit(0 if turn.cancellation.is_requested("a run") and not turn.cancellation.is_requested("another") else 1)
    assert turn.stop("a run") is False, "it does not run here"
    os.write(writing, b".")
    assert os.waitpid(child, 0)[1] == 0
    assert list(in_worker("a run")) == [], "nothing is made for a visitor who left while waiting"
