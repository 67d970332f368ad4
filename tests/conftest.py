"""Real parts for every test: the bundled model, the running app, its clients."""

import functools
import importlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.browser")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on models this small more threads only wait for each other
EMPTY_CACHE = tempfile.TemporaryDirectory(prefix="hub")  # what this machine has of the Hub must decide nothing
os.environ["HF_HUB_CACHE"] = EMPTY_CACHE.name

from benchmarks import real_model  # noqa: E402
from parley.engines.loader import load  # noqa: E402
from parley.engines.local_engine import LocalEngine  # noqa: E402
from parley.generation import streaming  # noqa: E402
from parley.models import registry  # noqa: E402
from parley.serving import turn  # noqa: E402
from parley.serving.model_pool import local_engine  # noqa: E402
from parley.serving.waiting_line import LINE  # noqa: E402
from parley.strategies import seed  # noqa: E402
from tests.standins.faulty_server import FaultyServer  # noqa: E402
from tests.standins.hub import save_tiny_model  # noqa: E402

ENDLESS_PACE = 0.008  # seconds between two tokens of the endless model, at least
ROOT = Path(__file__).parent.parent
APP_FIXTURES = re.compile(r"\bdef \w+\(([\w, ]*, )?(inside|space|visitor|visit|parrot)[,)]")  # who takes one of them


def engine(row=None, **environ):
    """The engine that a visitor would get for this model, the bundled one if none is given."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        return local_engine(load(row or registry.find("budgie"), report=lambda _: None, cancel=threading.Event()))


@pytest.fixture(scope="session")
def budgie():
    """Budgie as visitors get it."""
    return engine()


@pytest.fixture(scope="session")
def torch_budgie():
    """Budgie with PyTorch's weights and transformers' own code."""
    return engine(ENGINE="transformers")


@functools.cache
def draft(name=""):
    """The bundled model that drafts tokens for Budgie, by the engine of that name."""
    return engine(registry.DRAFT, **({"ENGINE": name} if name else {}))


def endless_engine():
    """A Budgie that never ends its answer by itself."""
    made = engine()
    made.loaded.model.generation_config.eos_token_id = None
    return type(made)(made.loaded)


@pytest.fixture(scope="session")
def endless():
    """Such a Budgie, for all tests."""
    return endless_engine()


@pytest.fixture(autouse=True)
def seeds(request, monkeypatch):
    """Where a test gives no seed, the same ones are drawn in each run: an answer may end early by chance."""
    monkeypatch.setattr(seed, "ENTROPY", random.Random(request.node.nodeid))


@pytest.fixture
def unthrottled(monkeypatch):
    """Every token is a delta of its own, so that how many there are does not depend on the speed of the machine."""
    monkeypatch.setattr(streaming, "FLUSH", 0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A sound model, not to be changed."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"chromium", "space"} & fixtures:
            item.add_marker(pytest.mark.slow)
        if {"real_model", "real_gguf"} & fixtures:
            item.add_marker(pytest.mark.timeout(real_model.DOWNLOAD + real_model.CONVERSION + 300))
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file goes to one worker. Of those that use an app, the files of the page go to one, and the others to one.

    So each app starts twice at most, and no worker is left alone with all that is slow.

    The groups of xdist 3.8 would do this, but pytest 9.2 ignores the names that it gives.
    """
    from xdist.scheduler import LoadScopeScheduling

    uses_app = functools.cache(lambda file: bool(APP_FIXTURES.search((ROOT / file).read_text())))

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            part = "the page" if file.startswith("tests/ui/") else "the app"
            return part if uses_app(file) else file

    return ByFile(config, log)


def lacking(reason):
    """Ends a test that needs what this machine lacks: skipped here, failed in CI, which has everything."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="session", name="real_gguf")
def smollm2_gguf(tmp_path_factory):
    """The same model as a GGUF file, in a folder of its own."""
    try:
        file = tmp_path_factory.mktemp("gguf") / "smollm2.gguf"
        file.symlink_to(real_model.gguf_file())
    except real_model.NotReachable as missing:
        lacking(str(missing))
    return file


@pytest.fixture(scope="session", name="real_model")
def smollm2():
    """The folder of SmolLM2-135M-Instruct, not to be changed."""
    try:
        return real_model.folder()
    except real_model.NotReachable as missing:
        lacking(str(missing))


@pytest.fixture
def folder(tiny, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "spoilt"))


def until(condition):
    """Waits for a condition. A wait that never ends is ended by the time limit of pytest, which shows where."""
    while not condition():
        time.sleep(0.02)  # between two looks at the condition


class Clock:
    """In the place of the module `time`: a clock that a test puts forward."""

    ahead = 0.0  # seconds

    def monotonic(self):
        return time.monotonic() + self.ahead


class Passes:
    """Counts the passes of a graph while it is entered."""

    def __init__(self, model):
        self.decoder = model.decoder

    def __enter__(self):
        self.before = self.decoder.num_passes
        return self

    @property
    def count(self):
        return self.decoder.num_passes - self.before

    def __exit__(self, *_):
        """Nothing has to be undone; `count` goes on."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Space:
    """`python app.py` as a user starts it, in a process of its own, with no network."""

    command = ("app.py",)
    folder = ROOT

    def __init__(self, port=None, **environment):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in `close`)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *self.command],
            cwd=self.folder,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GRADIO_SERVER_PORT": str(self.port), "HF_HUB_OFFLINE": "1", **environment},
        )
        self.seconds_to_answer = self._until_it_answers()

    def _until_it_answers(self):
        while time.monotonic() < self.began + 180:
            assert self.process.poll() is None, self.output()
            try:
                with urllib.request.urlopen(self.url, timeout=90) as page:
                    assert page.status == 200
                    return time.monotonic() - self.began
            except OSError:
                time.sleep(0.1)  # between two looks at a condition
        raise AssertionError(f"the page did not answer within 180 s\n{self.output()}")

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


@pytest.fixture(scope="session")
def space():
    running = Space(MODEL_IDS="budgie,parrot")
    yield running
    running.close()


def save_endless(folder):
    """Budgie's weights as a model that never ends an answer by itself."""
    shutil.copytree(ROOT / "parley" / "budgie" / "weights", folder)
    long = 8192  # tokens: a slow machine must not come to the end of them
    never = {"config.json": {"eos_token_id": 0, "max_position_embeddings": long}}
    never["generation_config.json"] = {"eos_token_id": 0, "repetition_penalty": 1.3}  # what goes round is soon said
    never["tokenizer_config.json"] = {"eos_token": "<|endoftext|>", "model_max_length": long}  # Budgie never says it
    for name, changes in never.items():
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))
    return folder


class Inside:
    """The app served from this process, so that a test can look at the model while clients use it."""

    def __init__(self, endless, stateful):
        self.endless, self.stateful = Path(endless).name, Path(stateful).name
        self.models = ["budgie", "parrot", self.endless, self.stateful]
        os.environ |= {"MODEL_IDS": f"budgie,parrot,{endless},{stateful}", "HF_HUB_OFFLINE": "1"}
        os.environ["DRAFT_MODELS"] = f"{self.endless}=budgie-draft"
        app = importlib.import_module("app")
        self.page = app.page
        self.demo, self.chat = app.demo, app.chat
        _, self.url, _ = app.demo.launch(
            **app.page.LAUNCH, prevent_thread_lock=True, quiet=True, server_port=free_port()
        )
        self.url = self.url.rstrip("/")
        self.close = app.demo.close
        self._pace_endless()

    def _pace_endless(self):
        """Makes the endless model no faster than a large one, whatever the machine: its end must not be come to."""
        plain = LocalEngine._new_streamer

        def paced(engine, *given):
            streamer = plain(engine, *given)
            if engine.loaded.spec.name == self.endless:
                counts, stopped = streamer._on_token, streamer._signal._cancel
                streamer._on_token = lambda: counts() or stopped.wait(ENDLESS_PACE)  # a stop is noticed at once
            return streamer

        LocalEngine._new_streamer = paced

    def engine(self, name):
        """The engine that answers as that model."""
        row = registry.find(name)
        with turn.POOL.lease(row, lambda _: None, threading.Event()) as engine:
            return engine

    def waiting(self):
        """How many visitors stand in line."""
        return LINE.num_waiting()


@pytest.fixture(scope="session")
def endless_folder(tmp_path_factory):
    return str(save_endless(tmp_path_factory.mktemp("models") / "endless"))


@pytest.fixture(scope="session")
def inside(tmp_path_factory, endless_folder):
    stateful = save_tiny_model(tmp_path_factory.mktemp("models") / "stateful", "Mamba", state_size=4)
    running = Inside(endless_folder, stateful)
    yield running
    running.close()


@pytest.fixture
def one_place(inside, monkeypatch):
    """Only one turn of the endless model runs at a time."""
    monkeypatch.setattr(inside.engine("endless"), "max_running", 1)


@pytest.fixture(scope="module")
def faulty():
    """A server whose models are faults."""
    server = FaultyServer()
    yield server
    server.close()
