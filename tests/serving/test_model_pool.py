"""The models in memory: loaded once, lent, waited for, given up."""

import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest

from parley.engines import parrot
from parley.engines.base import TurnRequest
from parley.engines.parrot import Parrot
from parley.errors import ModelUnavailable
from parley.events import Answer
from parley.messages import build_messages
from parley.models import hardware, registry
from parley.models.hub import LoadingStopped
from parley.models.load_plan import MEMORY_FACTOR
from parley.models.registry import BUDGIE
from parley.models.spec import ModelSpec
from parley.serving.model_pool import ModelPool
from parley.settings import Settings
from tests.conftest import Clock, until
from tests.standins.hub import WEIGHTS, save_tiny_model

PLENTY = 10**9


@pytest.fixture(autouse=True)
def sizes_that_stay_the_same(monkeypatch):
    """OpenVINO's pool of keys and values takes what the memory allows; see the last tests for that."""
    monkeypatch.setenv("ENGINE", "transformers")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Three models of equal size, for the pool as different as any."""
    folder = save_tiny_model(tmp_path_factory.mktemp("pool") / "tiny")
    return [ModelSpec(name, str(folder), name.upper()) for name in "abc"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    return ModelSpec("broken", str(tmp_path_factory.mktemp("broken")), "Broken")


@pytest.fixture
def for_two(rows):
    """Bytes of memory for two of the models, and for less than half of a third."""
    pool = ModelPool(free=lambda cards: PLENTY)
    use(pool, rows[0])
    return pool.loaded["a"] + int(MEMORY_FACTOR * (rows[0].folder / WEIGHTS).stat().st_size)


def pool_of(capacity):
    """A pool on a machine with so much memory."""
    pool = ModelPool(free=lambda cards: capacity - sum(pool.loaded.values()))
    return pool


def lease(pool, row, report=lambda _: None, cancel=None):
    return pool.lease(row, report, cancel or threading.Event())


def use(pool, *rows):
    for row in rows:
        with lease(pool, row):
            pass


def said(engine, text, session=""):
    asked = build_messages([], text), Settings.check({"max_new_tokens": 3}), threading.Event()
    return sum(engine.stream(TurnRequest.of(*asked, session=session)), Answer())


def remembered(pool):
    """The bytes of all prefixes."""
    return pool.cached_bytes


class Blocked:
    """A load that has begun and waits, in its own thread, until the block is left."""

    def __init__(self, pool, row):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.load, args=(pool, row))

    def load(self, pool, row):
        with lease(pool, row, self.report):
            pass

    def report(self, _):
        self.begun.set()
        assert self.go_on.wait(90)

    def __enter__(self):
        self.thread.start()
        assert self.begun.wait(90)
        return self

    def __exit__(self, *_):
        self.go_on.set()
        self.thread.join(90)


def test_two_who_ask_at_once_get_the_same_engine(rows):
    pool, together, engines = pool_of(PLENTY), threading.Barrier(2), []

    def ask():
        together.wait(90)
        with lease(pool, rows[0]) as engine:
            engines.append(engine)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert len(engines) == 2 and engines[0] is engines[1]
    assert list(pool.loaded) == ["a"]


def test_a_loaded_model_answers_while_another_is_loading(rows):
    pool = pool_of(PLENTY)
    use(pool, rows[0])
    with Blocked(pool, rows[1]), lease(pool, rows[0]) as engine:
        assert said(engine, "Hello").usage.new_tokens > 0
        assert list(pool.loaded) == ["a"]
    assert list(pool.loaded) == ["a", "b"]


def test_a_turn_that_waits_for_another_load_reports_it_and_can_be_stopped(rows):
    pool, cancel, told = pool_of(PLENTY), threading.Event(), []

    def report(sentence):
        told.append(sentence)
        cancel.set()

    with Blocked(pool, rows[0]), pytest.raises(LoadingStopped, match="Loading B was stopped"):
        lease(pool, rows[1], report, cancel).__enter__()
    assert told == ["Looking for A"]
    assert list(pool.loaded) == ["a"]


@pytest.mark.slow
def test_the_longest_unused_model_makes_room_and_its_memory_is_given_back(rows, for_two):
    pool = pool_of(for_two)
    a, b, c = rows
    use(pool, a)
    with lease(pool, b) as engine:
        model = weakref.ref(engine.loaded.model)
    del engine
    use(pool, a, c)
    assert list(pool.loaded) == ["a", "c"]
    assert model() is None


def test_a_model_in_use_stays_even_when_another_must_be_refused(rows, for_two):
    pool = pool_of(for_two)
    a, b, c = rows
    with lease(pool, a) as first, lease(pool, b):
        with pytest.raises(ModelUnavailable, match=r"C needs about .* of memory"):
            use(pool, c)
        assert said(first, "Hello").usage.new_tokens > 0
        assert list(pool.loaded) == ["a", "b"]


@pytest.mark.slow
def test_budgie_is_given_up_last(rows, for_two):
    budgie, pool = replace(rows[0], name="budgie"), pool_of(for_two)
    use(pool, budgie, rows[1], rows[2])
    assert list(pool.loaded) == ["budgie", "c"]


def test_nothing_is_given_up_for_a_model_that_would_not_fit_anyway(rows, for_two, tmp_path):
    big = ModelSpec("big", str(save_tiny_model(tmp_path / "big", hidden_size=512)), "Big")
    pool = pool_of(for_two)
    use(pool, rows[0])
    with pytest.raises(ModelUnavailable, match="of memory"):
        use(pool, big)
    assert list(pool.loaded) == ["a"]


@pytest.mark.slow
def test_what_is_remembered_of_conversations_goes_before_any_model_does(rows, for_two):
    more = 0
    pool = ModelPool(free=lambda cards: for_two + more - sum(pool.loaded.values()) - remembered(pool))
    a, b, c = rows
    use(pool, a)
    with lease(pool, b) as engine:
        assert said(engine, "Hello", session="visitor").usage.new_tokens > 0
        taken = remembered(pool)
        assert taken > 0
        with pytest.raises(ModelUnavailable, match="of memory"):
            use(pool, replace(c, id=str(BUDGIE / "weights")))
        assert remembered(pool) == taken  # it would have been in vain
    more = pool.loaded["a"]
    use(pool, c)
    assert (list(pool.loaded), remembered(pool)) == (["a", "b", "c"], 0)


def test_a_model_that_could_be_loaded_were_all_others_gone_counts_as_one_that_fits(rows, for_two):
    pool = pool_of(for_two)
    use(pool, rows[0])
    assert pool.available_bytes(SimpleNamespace(cards=1)) == for_two


def test_a_failed_load_or_turn_leaves_the_pool_as_it_was(rows, for_two, broken):
    pool = pool_of(for_two)
    with pytest.raises(ModelUnavailable, match="Broken"):
        use(pool, broken)
    with pytest.raises(ZeroDivisionError), lease(pool, rows[0]):
        _ = 1 / 0
    use(pool, rows[1], rows[2])  # the lease of the first was returned, so it may go
    assert list(pool.loaded) == ["b", "c"]


@pytest.mark.slow
def test_models_are_placed_at_the_start_and_none_drives_out_another(rows, for_two, broken):
    pool = pool_of(for_two)
    pool.preload([rows[0], broken, rows[1], rows[2]])
    assert list(pool.loaded) == ["a", "b"]
    for row, reason in ((broken, "Broken"), (rows[2], "of memory")):
        with pytest.raises(ModelUnavailable, match=reason):
            pool.check(row)
    pool.check(rows[0])
    use(pool, rows[2])  # their leases were returned: a turn may drive one out
    assert list(pool.loaded) == ["b", "c"]


def test_the_parrot_comes_from_the_same_pool():
    with lease(ModelPool(), registry.find("parrot", {"MODEL_IDS": "parrot"})) as engine:
        assert isinstance(engine, Parrot)
        assert said(engine, "Hello there").text == "Hello the"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "900\n", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 300\n"}, 500),
        ({"memory.max": "900\n", "memory.current": "950", "memory.stat": ""}, 0),
        (
            {"memory/memory.limit_in_bytes": "900", "memory/memory.usage_in_bytes": "100", "memory/memory.stat": ""},
            800,
        ),
    ],
    ids=["version 2", "over the limit", "version 1"],
)
def test_the_limits_of_a_container_bound_the_free_memory(tmp_path, files, free):
    if hardware.device() == "cuda":
        pytest.skip("the memory of the GPU counts here")
    unlimited = hardware.free_memory(cgroups=tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert hardware.free_memory(cgroups=tmp_path) == free < unlimited


def test_a_container_without_limits_has_the_memory_of_the_machine(tmp_path):
    if hardware.device() == "cuda":
        pytest.skip("the memory of the GPU counts here")
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.free_memory(cgroups=tmp_path) > 1_000_000
    assert hardware.free_disk() > 1_000_000


def untouched(pool):
    """The bytes that are set aside and were never written."""
    return pool.unwritten_bytes


def test_the_room_counts_what_is_set_aside_for_keys_and_values_once(rows, monkeypatch):
    monkeypatch.setenv("ENGINE", "openvino")
    pool = ModelPool(free=lambda cards: PLENTY - sum(pool.loaded.values()) + untouched(pool))  # as the machine sees it
    use(pool, rows[0])
    set_aside = untouched(pool)
    assert 0 < set_aside < pool.loaded["a"]
    assert pool.available_bytes(SimpleNamespace(cards=1)) == PLENTY
    with lease(pool, rows[0]) as engine:
        assert said(engine, "owl " * 60).usage.new_tokens > 0
    assert 0 < untouched(pool) < set_aside
    assert pool.available_bytes(SimpleNamespace(cards=1)) == PLENTY


def test_memory_that_is_set_aside_is_not_free_for_another_model(rows, monkeypatch):
    monkeypatch.setenv("ENGINE", "openvino")
    pool = ModelPool(free=lambda cards: untouched(pool) + 1000 if pool.loaded else PLENTY)
    with lease(pool, rows[0]), pytest.raises(ModelUnavailable, match=r"and 1 kB are free"):
        use(pool, rows[1])


@pytest.mark.slow
def test_a_model_that_is_given_up_takes_its_graph_and_its_keys_and_values_with_it(rows, monkeypatch):
    monkeypatch.setenv("ENGINE", "openvino")
    pool = ModelPool(free=lambda cards: untouched(pool) if "a" in pool.loaded else PLENTY)
    with lease(pool, rows[0]) as engine:
        assert said(engine, "Hello", session="visitor").usage.new_tokens > 0
        decoder, blocks = (
            weakref.ref(each) for each in (engine.loaded.model.decoder, engine.loaded.model.decoder.pool)
        )
    del engine
    use(pool, rows[1])
    assert list(pool.loaded) == ["b"]
    until(lambda: decoder() is None and blocks() is None)


def test_an_answer_lasts_as_long_as_the_owner_allows(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(parrot, "time", clock)
    monkeypatch.setenv("MAX_TURN_SECONDS", "7")
    row, settings, said = registry.find("parrot"), Settings.check({"model": "parrot"}), Answer()
    with ModelPool().lease(row, lambda _: None, threading.Event()) as engine:
        question = build_messages([], "abc " * 20)
        for delta in engine.stream(TurnRequest.of(question, settings, threading.Event())):
            said += delta
            clock.ahead = 7 if len(said.text) > 10 else 0
    assert said.finish == "time" and 10 < len(said.text) < 20
    with ModelPool().lease(registry.find("budgie"), lambda _: None, threading.Event()) as engine:
        assert engine.turn_seconds == 7
