"""A stand-in for ZeroGPU's device API: slots with a queue before them, workers that are allowed, kept and killed.

What the shipped client needs and no more. How the real server chooses, and which worker it evicts, is not known.
"""

import json
import os
import signal
import threading
import time
import uuid
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

GRACE = 2.0  # seconds beyond what was asked for; the real one's are not known, and a busy machine is late
PING = 0.1  # seconds between two signs of life to who waits
FAILED, ALL_SAID = (b"%x\r\n%s\r\n" % (len(each), each) for each in (b"event: failed\n\n", b""))  # as HTTP sends them


@dataclass
class Slot:
    """A GPU: free without a token, and then perhaps with the worker that had it last."""

    index: int
    token: str | None = None
    task: str | None = None
    pid: int | None = None
    used: bool = False  # by who holds it
    deadline: float = 0.0


@dataclass
class Refusal:
    """What /schedule answers instead of a GPU."""

    status: int
    body: dict | None = None
    headers: tuple[tuple[str, str], ...] = ()


class DeviceApi:
    """Serves until closed. `calls` holds the path and the query of every request."""

    def __init__(self, slots=1):
        self.slots = [Slot(i) for i in range(slots)]
        self.calls: list[tuple[str, dict]] = []
        self.refusals: deque[Refusal] = deque()
        self.line: list[str] = []  # who waits, by a name of their own
        self.ending: bytes | None = None  # what a waiting client gets before the connection ends
        self.lock = threading.Condition()
        self.open = True
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.api = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def asked(self, path):
        """The queries of all requests for that path."""
        return [query for called, query in self.calls if called == path]

    @property
    def busy(self):
        return [slot for slot in self.slots if slot.token]

    @property
    def pids(self):
        return [slot.pid for slot in self.slots if slot.pid and alive(slot.pid)]

    @contextmanager
    def occupied(self):
        """While entered all GPUs belong to others."""
        with self.lock:
            tokens = [self.acquire("others", 3600)["allowToken"] for _ in self.slots]
        try:
            yield
        finally:
            for token in tokens:
                self.release(token, "false")

    def take_away(self):
        """What the server does to who holds a GPU for too long."""
        with self.lock:
            for slot in self.busy:
                slot.deadline = 0.0

    def kill_workers(self):
        with self.lock:
            for slot in self.slots:
                self._kill(slot)

    def acquire(self, task, seconds):
        """A GPU, as the client wants to be told of it; None if all are busy."""
        for slot in self.slots:
            if slot.token is None:
                idle = bool(slot.pid and alive(slot.pid) and slot.task == task)
                if not idle:
                    self._kill(slot)
                slot.token, slot.task, slot.used = uuid.uuid4().hex, task, idle
                slot.deadline = time.monotonic() + seconds + GRACE
                uuid_ = f"GPU-{slot.index}"
                return {"idle": idle, "nvidiaIndex": slot.index, "nvidiaUUID": uuid_, "allowToken": slot.token}
        return None

    def allow(self, token, pid):
        for slot in self.busy:
            if slot.token == token:
                slot.pid, slot.used = int(pid), True
                return 200
        return 404

    def release(self, token, fail):
        with self.lock:
            for slot in self.busy:
                if slot.token == token:
                    slot.token = None
                    if fail == "true":
                        self._kill(slot)
                    self.lock.notify_all()
                    return 200 if slot.used else 204
        return 404

    def _kill(self, slot):
        if slot.pid:
            with suppress(ProcessLookupError):
                os.kill(slot.pid, signal.SIGKILL)
            slot.pid = None

    def _watch(self):
        while self.open:
            with self.lock:
                for slot in self.busy:
                    if time.monotonic() > slot.deadline:
                        self._kill(slot)
                        slot.token = None
                        self.lock.notify_all()
            time.sleep(0.05)

    def close(self):
        self.open = False
        self.kill_workers()
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        api, url = self.server.api, urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        self.rfile.read(int(self.headers.get("content-length") or 0))
        api.calls.append((url.path, query))
        if url.path == "/startup-report":
            self._answer(200)
        elif url.path == "/schedule":
            self._schedule(api, query)
        elif url.path == "/allow":
            self._answer(api.allow(query["allowToken"], query["pid"]))
        elif url.path == "/release":
            self._answer(api.release(query["allowToken"], query["fail"]))
        else:
            self._answer(404)

    def _schedule(self, api, query):
        if api.refusals:
            refusal = api.refusals.popleft()
            if not refusal.status:  # no answer at all
                self.close_connection = True
                return
            self._answer(refusal.status, refusal.body, refusal.headers)
            return
        task, seconds = query["taskId"], int(query["durationSeconds"])
        with api.lock:
            gpu = None if api.line else api.acquire(task, seconds)
        if gpu:
            self._answer(200, gpu)
            return
        me = uuid.uuid4().hex
        api.line.append(me)
        self.send_response(200)
        for name, value in (("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")):
            self.send_header(name, value)
        self.send_header("X-Queuing-Reason", "concurrency")
        self.end_headers()
        try:
            self._wait(api, me, task, seconds)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the visitor has left
        finally:
            if me in api.line:
                api.line.remove(me)
            self.close_connection = True

    def _wait(self, api, me, task, seconds):
        while api.ending is None:
            with api.lock:
                gpu = api.acquire(task, seconds) if api.line[0] == me else None
                if not gpu:
                    api.lock.wait(PING)
            if gpu:
                api.line.remove(me)
                self._chunk(f"event: succeeded\ndata: {json.dumps(gpu)}\n\n")
                self.wfile.write(ALL_SAID)
                return
            self._chunk("event: ping\n\n")
        self.wfile.write(api.ending)

    def _chunk(self, text):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text.encode()))
        self.wfile.flush()

    def _answer(self, status, body=None, headers=()):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def alive(pid):
    """Whether the process runs, and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
