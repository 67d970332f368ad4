"""Where the faults happen: the app in this process, one before a stand-in for the Hub, and what a caller is told."""

import json
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import httpx2
import pytest

from tests.conftest import Space
from tests.standins.faulty_server import KEY
from tests.standins.hub import HubStandIn

NONCE = "xyzzy4711"  # no log and no metric may hold it
STORY = f"Tell me a story about an owl named {NONCE} by the river."


@dataclass
class Told:
    """What a caller reads of one turn: the text, and the sentence if it broke off."""

    text: str = ""
    sentence: str = ""


def ask(url, model="budgie", on_text=None, **values):
    """Asks as a program does, and reads to the end. Calls `on_text` once, when the first text has come."""
    told, kind = Told(), ""
    body = {"message": STORY, "model": model, "max_new_tokens": 60, **values}
    with httpx2.Client(base_url=url, timeout=240) as http:
        posted = http.post("/gradio_api/call/v2/chat", json=body)
        if posted.status_code != 200:
            return Told(sentence=posted.json()["detail"])
        with http.stream("GET", f"/gradio_api/call/chat/{posted.json()['event_id']}") as stream:
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                kind = value if name == "event" else kind
                if name == "data" and kind == "error":
                    told.sentence = json.loads(value)["error"]
                elif name == "data" and kind in ("generating", "complete") and value != "null":
                    told.text = json.loads(value)[0] or told.text
                    if told.text and on_text:
                        on_text()
                        on_text = None
    return told


class World:
    """All that a fault may need. What takes long to start is started when the first fault needs it."""

    def __init__(self, inside, faulty, tiny, tmp_path, open_browser):
        self.inside, self.faulty, self.tiny, self.tmp_path = inside, faulty, tiny, tmp_path
        self._open_browser = open_browser
        self._numbers, self.closing, self.spaces = count(), [], []

    def new_folder(self, kind):
        """An empty place with a name that no other fault has."""
        return self.tmp_path / f"{kind}-{next(self._numbers)}"

    @cached_property
    def hub(self):
        """A stand-in for the Hub, over HTTP."""
        standin = HubStandIn()
        self.closing.append(standin.close)
        return standin

    @cached_property
    def space(self):
        """`python app.py` before that Hub."""
        return self.start()

    def start(self, kind=Space, **environment):
        """Another one."""
        home = str(self.new_folder("home"))
        known = {"HF_HOME": home, "HF_HUB_CACHE": f"{home}/hub", "HF_ENDPOINT": self.hub.url, "HF_HUB_OFFLINE": "0"}
        started = kind(**{"MODEL_IDS": "parrot,budgie", "ALLOW_ANY_MODEL": "1"} | known | environment)
        self.spaces.append(started)
        self.closing.append(started.close)
        return started

    @cached_property
    def chromium(self):
        """A browser."""
        return self._open_browser()

    @contextmanager
    def variables(self, **values):
        """Sets variables of the owner for the app in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in values.items():
                patch.setenv(name, value)
            yield

    @contextmanager
    def folder(self, source=None):
        """A copy of a sound model that the owner has named, to spoil, and a function that mends it."""
        made = shutil.copytree(source or self.tiny, self.new_folder("model"))

        def mend():
            shutil.rmtree(made)
            shutil.copytree(source or self.tiny, made)

        with self.variables(MODEL_IDS=f"budgie,parrot,{made}"):
            yield made, mend

    @contextmanager
    def remote(self, *models):
        """Models on the faulty server."""
        names = {"REMOTE_MODELS": ",".join(models), "REMOTE_BASE_URL": self.faulty.url, "REMOTE_API_KEY": KEY}
        with self.variables(**names):
            yield

    def close(self):
        """Ends all that was started."""
        for close in reversed(self.closing):
            close()


def in_thread(work):
    """Runs it in a thread, and returns a function that waits for what it returns."""
    made = []
    thread = threading.Thread(target=lambda: made.append(work()), daemon=True)
    thread.start()

    def result():
        thread.join()
        return made[0]

    return result
