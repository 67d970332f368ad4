"""No call makes the server open a connection or a stranger's file: a hook in its process sees all that it opens."""

import json
import random
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from parley.api.routes import SERVED
from tests.conftest import ROOT, Space, until

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

WATCHED = "socket.connect socket.getaddrinfo socket.gethostbyname open subprocess.Popen os.listdir os.scandir"
PROGRAM = f"""
import os, runpy, sys, threading
log = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
watched = {WATCHED.split()!r}
def see(event, arguments):
    if event in watched:
        what = arguments[1] if event == "socket.connect" else arguments[0]
        os.write(log, (event + " " + repr(what) + "\\n").encode())
sys.addaudithook(see)
sys.path.insert(0, "")
runpy.run_path("app.py", run_name="__main__")
"""


class Watched(Space):
    """`python app.py` in a process that writes down what it opens."""

    command = ("-c", PROGRAM)

    def seen(self):
        """All of that so far."""
        return Path(self.file).read_text().splitlines()


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("seen") / "events"
    made = Watched(MODEL_IDS="parrot,budgie", SEEN=str(file))
    made.file = file
    yield made
    made.close()


@pytest.fixture
def secret(tmp_path, tiny):
    """A folder that nobody named to the app: a sound model, and a file."""
    folder = shutil.copytree(tiny, tmp_path / "watched-folder")
    (folder / "secret.txt").write_text("xyzzy")
    return folder


def values(server, secret):
    """Texts and objects that some server somewhere would follow."""
    url, path = f"{server}/x", str(secret / "secret.txt")
    file = {"path": path, "url": url, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}
    return [
        *(url, path, f"file://{path}", str(secret), f"hf://{secret}", f"../../../../../..{path}", f"{secret}@main"),
        *([url], [path], {"path": path}, {"url": url}, {"$ref": url}, file, [[{"a": [file]}]]),
        {"type": "image_url", "image_url": {"url": url}},
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"path": path}}]}],
        [{"role": "user", "content": {"path": path, "mime_type": "text/plain"}}],
        [{"type": "function", "function": {"name": "x", "parameters": {"$ref": url}}}],
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": url}}},
    ]


ESCAPED = 0.25  # the share of places where a value has escapes for the letters that a filter may look for


def escaped(plain):
    """The same JSON in other letters."""
    return plain.replace("_type", "\\u005ftype").replace("FileData", "File\\u0044ata").replace("/", "\\/")


class Caller:
    """Calls and reads each stream to its end."""

    def __init__(self, url):
        self.http = httpx2.Client(base_url=url, timeout=120)
        self.count = 0

    def send(self, method, path, body=None, **headers):
        self.count += 1
        headers = {"Content-Type": "application/json", **headers}
        answer = self.http.request(method, path, content=body, headers=headers)
        assert answer.status_code < 500, (path, body, answer.text)
        return answer

    def call(self, name, body):
        answer = self.send("POST", f"/gradio_api/call/v2/{name}", body)
        if answer.status_code == 200:
            self.send("GET", f"/gradio_api/call/{name}/{answer.json()['event_id']}")

    def join(self, index, data):
        body = f'{{"fn_index": {index}, "session_hash": "s{self.count}", "data": {data}}}'
        if self.send("POST", "/gradio_api/queue/join", body).status_code == 200:
            self.send("GET", f"/gradio_api/queue/data?session_hash=s{self.count - 1}")


def attack(caller, everything):
    """Each value in each place of each route."""
    endpoints = caller.send("GET", "/gradio_api/info").json()["named_endpoints"]
    config = caller.send("GET", "/config").json()
    usual = {"message": '"hi"', "messages": '"hi"', "model": '"parrot"', "max_new_tokens": "4"}
    chance = random.Random(1)
    for plain in map(json.dumps, everything):

        def body_of(right, parameter, plain=plain):
            value = escaped(plain) if chance.random() < ESCAPED else plain
            return ", ".join(f'"{n}": {text}' for n, text in {**right, parameter: value}.items())

        for name, described in endpoints.items():
            names = [each["parameter_name"] for each in described["parameters"]]
            fixed = {n: text for n, text in usual.items() if n in names}
            for parameter in (*names, "unknown"):
                caller.call(name[1:], f"{{{body_of(fixed, parameter)}}}")
            caller.send("POST", f"/gradio_api/run{name}", f'{{"data": [{", ".join([plain] * len(names))}]}}')
        for path in ("/v1/chat/completions", "/v1/completions", "/tokenize"):
            right = {"model": '"parrot"', "messages": '[{"role": "user", "content": "hi"}]', "prompt": '"hi"'}
            right = {n: text for n, text in right.items() if n != ("prompt" if "chat" in path else "messages")}
            right["max_tokens"] = "4"
            for parameter in (
                *right,
                "tools",
                "response_format",
                "logit_bias",
                "lora",
                "chat_template",
                "stop",
                "user",
            ):
                caller.send("POST", path, f"{{{body_of(right, parameter)}}}")
        for path in ("/gradio_api/cancel", "/gradio_api/reset"):
            caller.send("POST", path, f'{{"event_id": {plain}, "session_hash": {plain}, "fn_index": 0}}')
    texts = [each for each in everything if isinstance(each, str)]
    for value in texts:
        for dependency in config["dependencies"]:
            caller.join(dependency["id"], json.dumps([value] * len(dependency["inputs"])))
        for route in SERVED:
            method, path = route.split(" ")
            if method == "POST" or "heartbeat" in path:
                continue
            for written_as in (quote(value, safe=""), quote(value), value.replace("/", "%252f")):
                begin = path.partition("{")[0]
                caller.send(method, begin + written_as if "{" in path else path, None, Referer=value)
                caller.send(method, f"{begin}?url={written_as}&file={written_as}&model={written_as}&view={written_as}")
        for header in ("X-Forwarded-Host", "X-Direct-Url", "X-Proxy-Url", "X-Gradio-Server", "Forwarded"):
            caller.send("GET", "/config", **{header: value})


@pytest.mark.timeout(1200)
def test_no_call_opens_a_connection_or_a_file_of_somebody_else(space, secret, elsewhere):
    caller = Caller(space.url)
    caller.call(
        "chat", '{"message": "hi", "model": "budgie", "max_new_tokens": 4}'
    )  # what is loaded once is loaded now
    until(lambda: caller.http.get("/healthz").status_code == 200)
    before = len(space.seen())
    assert any(line.startswith("open") and "budgie" in line for line in space.seen())  # so it does see
    attack(caller, values(elsewhere.url, secret))
    assert caller.count > 2000
    events = [line.partition(" ") for line in space.seen()[before:]]
    assert elsewhere.asked == []
    assert [event for event in events if event[0].startswith(("socket.", "subprocess"))] == []
    own = tuple(map(str, (ROOT, Path(sys.prefix), Path(sys.base_prefix), "/proc/", "/sys/")))
    others = {path for name, _, path in events if name in ("open", "os.listdir", "os.scandir")}
    others = {path for path in others if not path.strip("'b\"").startswith(own)}
    assert {path for path in others if "watched-folder" in path or "secret" in path} == set()
    assert others == set()
