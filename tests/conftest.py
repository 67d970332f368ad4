"""Real parts for every test: the bundled model, the running app, its clients."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from parley import catalog
from parley.engines.loading import load
from parley.engines.local import LocalEngine

ROOT = Path(__file__).parent.parent


def engine():
    return LocalEngine(load(catalog.find("budgie"), report=lambda _: None, cancel=threading.Event()))


@pytest.fixture(scope="session")
def budgie():
    return engine()


@pytest.fixture(scope="session")
def endless():
    """A Budgie that never ends its answer by itself."""
    made = engine()
    made.loaded.model.generation_config.eos_token_id = None
    return LocalEngine(made.loaded)


class Space:
    """`python app.py` as a user starts it, in a process of its own, with no network."""

    def __init__(self, **environment):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile("w+")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GRADIO_SERVER_PORT": str(self.port), "HF_HUB_OFFLINE": "1", **environment},
        )
        self.seconds_to_answer = self._until_it_answers()

    def _until_it_answers(self):
        while time.monotonic() < self.began + 90:
            assert self.process.poll() is None, self.output()
            try:
                with urllib.request.urlopen(self.url, timeout=5) as page:
                    assert page.status == 200
                    return time.monotonic() - self.began
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)  # between two looks at a condition
        raise AssertionError(f"the page did not answer within 90 s\n{self.output()}")

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


@pytest.fixture(scope="session")
def space():
    running = Space(MODEL_IDS="budgie,parrot")
    yield running
    running.close()
