"""A small stand-in for the Hub: model folders over HTTP under its real addresses, with faults to switch on.

As a program it is the other side: a process with its own HF_ENDPOINT and HF_HOME that loads what it is asked for.
"""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

WEIGHTS = "model.safetensors"
TOKEN = "hf_" + "s" * 34


@dataclass
class Repo:
    """One repository: a folder for each revision, and what is wrong with it."""

    revisions: dict[str, Path]
    gated: bool = False  # its metadata is public, its files are not
    private: bool = False  # wants TOKEN
    status: int = 0  # of every answer, when not 0
    faulty: str = WEIGHTS  # the file that the following is about
    cut: int = 0  # so many answers break off in the middle
    damage: Callable[[bytes], bytes] | None = None
    damaged: int = 0  # so many answers go through `damage`
    hold_after: int | None = None  # bytes, then wait for `released`
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, dict]] = field(default_factory=list)  # method, file, headers

    def commit(self, revision):
        """The full hash of a revision; None if there is no such revision."""
        hashes = {name: hashlib.sha1(str(path).encode()).hexdigest() for name, path in self.revisions.items()}
        return hashes.get(revision) or (revision if revision in hashes.values() else None)

    def folder(self, commit):
        return next(path for name, path in self.revisions.items() if self.commit(name) == commit)

    def downloads(self, file=WEIGHTS):
        """The headers of each request for the content of that file."""
        return [headers for method, name, headers in self.requests if method == "GET" and name == file]


class HubStandIn:
    """Serves `repos` until closed. Large files come from another host name, as on the Hub."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.server.repos = self.repos
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def add(self, id, folder, **faults):
        self.repos[id] = Repo({"main": folder}, **faults)
        return self.repos[id]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def _entry(path, root):
    data = path.read_bytes()
    entry = {"size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    if path.suffix in (".safetensors", ".bin"):
        entry["lfs"] = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
    return path.relative_to(root).as_posix(), entry


class Handler(BaseHTTPRequestHandler):
    """Answers from the repositories of its server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        api, cdn = parts[:2] == ["api", "models"], parts[0] == "cdn"
        parts = parts[2:] if api else parts[1:] if cdn else parts
        repo, rest = self.server.repos.get("/".join(parts[:2])), parts[2:]
        allowed = repo and (cdn or not repo.private or self.headers["Authorization"] == f"Bearer {TOKEN}")
        if not allowed:
            return self.refuse(401, "RepoNotFound")
        if repo.status:
            return self.refuse(repo.status, "")
        commit = repo.commit(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        if api:
            return self.describe("/".join(parts[:2]), repo.folder(commit), commit, tree=rest[:1] == ["tree"])
        return self.file("/".join(parts[:2]), repo, commit, "/".join(rest[2:]), cdn)

    def refuse(self, status, code):
        self.answer(status, b"", {"X-Error-Code": code} if code else {})

    def describe(self, id, folder, commit, tree):
        files = dict(_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file())
        if tree:
            told = [{"type": "file", "path": path, **entry} for path, entry in files.items()]
        else:
            siblings = [
                {"rfilename": path, "size": e["size"], "blobId": e["oid"]}
                | ({"lfs": {**e["lfs"], "sha256": e["lfs"]["oid"]}} if "lfs" in e else {})
                for path, e in files.items()
            ]
            told = {"id": id, "sha": commit, "siblings": siblings}
        self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def file(self, id, repo, commit, name, cdn):
        path = repo.folder(commit) / name
        if repo.gated:
            return self.refuse(403, "GatedRepo")
        if not path.is_file():
            return self.refuse(404, "EntryNotFound")
        entry = _entry(path, repo.folder(commit))[1]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" in entry and not cdn:
            headers |= {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(entry["size"])}
            port = self.server.server_port
            headers["Location"] = f"http://localhost:{port}/cdn/{id}/resolve/{commit}/{name}"
            return self.answer(302, b"", headers)
        repo.requests.append((self.command, name, dict(self.headers)))
        self.content(repo, name, path.read_bytes(), headers)
        return None

    def content(self, repo, name, data, headers):
        faulty = name == repo.faulty and self.command == "GET"
        if faulty and repo.damaged:
            repo.damaged -= 1
            data = repo.damage(data)
        status, start = 200, 0
        if wanted := self.headers["Range"]:
            status, start = 206, int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        data = data[start:]
        pause = repo.hold_after if faulty else None
        if faulty and repo.cut:
            repo.cut -= 1
            self.answer(status, data, headers, sent=len(data) // 2)
            self.close_connection = True
        else:
            self.answer(status, data, headers, sent=pause)
            if pause is not None:
                repo.released.wait(240)
                self.write(data[pause:])

    def answer(self, status, body, headers, sent=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.write(body[:sent])

    def write(self, data):
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except ConnectionError:  # the reader stopped it
            self.close_connection = True


def save_tiny_model(folder, kind="Llama", **config):
    """A random model of two thin layers with Budgie's tokenizer; loads in a moment."""
    import torch
    import transformers

    from parley.models.registry import BUDGIE

    torch.manual_seed(0)
    shape = {"vocab_size": 2048, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
    shape |= {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    class_of = getattr(transformers, f"{kind}TextConfig", None) or getattr(transformers, f"{kind}Config")
    transformers.AutoModelForCausalLM.from_config(class_of(**shape | config)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BUDGIE / "weights" / name, folder)
    return folder


def put_into_cache(cache, id, files):
    """A snapshot of these texts, where huggingface_hub looks for it; returns its folder."""
    commit, repo = "c" * 40, Path(cache) / f"models--{id.replace('/', '--')}"
    folder = repo / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def edit(file, **changes):
    """Changes or adds top-level values of a JSON file."""
    settings = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(settings | changes))


def change_weights(folder, change):
    """Saves the tensors again after `change` has had them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


class Loader:
    """A process that loads models from the stand-in, as the app does, and reports what happens."""

    def __init__(self, home, endpoint, prefix=(), **environment):
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, __file__],
            cwd=root,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "PYTHONPATH": str(root),
                "HF_HOME": str(home),
                "HF_ENDPOINT": endpoint,
                "HF_TOKEN": TOKEN,
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, id, **order):
        """Orders a load; `order` may have revision, gguf, op, memory, disk (bytes that are free)."""
        self.say({"id": id, **order})

    def say(self, told):
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def next(self):
        """What it reports next: {"report": …}, or at the end {"loaded": …} or {"error": …, "text": …}."""
        line = self.process.stdout.readline()
        assert line, f"the loader ended with {self.process.wait()}"
        return json.loads(line)

    def load(self, id, **order):
        self.start(id, **order)
        while "report" in (told := self.next()):
            pass
        return told

    def close(self):
        self.process.stdin.close()
        self.process.wait(90)
        self.process.stdout.close()


def _serve():
    """Obeys one order a line; {"cancel": true} stops the running one."""
    if os.environ.get("LOADER_IMPORTS"):
        importlib.import_module(os.environ["LOADER_IMPORTS"])
    answers = sys.stdout
    cancel = threading.Event()

    def tell(**told):
        print(json.dumps(told), file=answers, flush=True)

    def obey(order):
        from parley.errors import ChatError

        try:
            tell(loaded=_obey(order, lambda sentence: tell(report=sentence), cancel))
        except ChatError as error:
            tell(error=type(error).__name__, text=str(error))

    for line in sys.stdin:
        order = json.loads(line)
        if "cancel" in order:
            cancel.set()
        else:
            cancel.clear()
            threading.Thread(target=obey, args=(order,), daemon=True).start()


def _obey(order, report, cancel):
    from parley.models import hardware, hub, registry

    file = f"/{order['gguf']}" if order.get("gguf") else ""
    name = order["id"] + file + (f"@{order['revision']}" if order.get("revision") else "")
    row = registry.find(name, {"MODEL_IDS": name})
    disk = hardware.free_disk if order.get("disk") is None else lambda: order["disk"]
    if order.get("op") == "fetch":
        return str(hub.find(row).fetch(hub.SMALL + hub.WEIGHTS, report, cancel, disk))
    if order.get("op") == "traits":
        found = registry.traits(row)
        return {"recommended": found.recommended, "thinking": found.thinking, "context": found.context}
    if order.get("op") == "outlook":
        estimate = registry.estimate(row, lambda fit: order["memory"])
        return estimate and estimate.figures
    from parley.engines.loader import load

    memory = order.get("memory")
    loaded = load(row, report, cancel, available_bytes=None if memory is None else lambda _: memory, disk=disk)
    return {
        "context": loaded.context,
        "dtype": str(loaded.model.dtype),
        "weights": loaded.plan.weights,
        "thinking": loaded.reasoning.switch is not None,
    }


if __name__ == "__main__":
    _serve()
