"""`transformers serve --continuous-batching`, whose answers never end by themselves."""

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SECONDS = 120.0  # until it has to answer
NEEDED = ("fastapi", "uvicorn", "openai", "accelerate")  # what its command needs besides transformers
PROGRAM = (sys.executable, "-m", "transformers.cli.transformers", "serve", "--continuous-batching")
# Without bounds it takes nine tenths of the memory for keys and values, and each step looks at all of it.
OPTIONS = ("--device", "cpu", "--dtype", "float32", "--cb-num-blocks", "64", "--cb-max-batch-tokens", "256")


def missing() -> str:
    """Why it is left out, a sentence; empty where it can run."""
    if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return f"transformers serve is left out: install {' and '.join(lacking)}."
    return ""


def endless(model: Path, folder: Path) -> Path:
    """`folder`, made the same model without a token that ends an answer."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps({"pad_token_id": 0}), "utf-8")
    return folder


class TransformersServe:
    """The server in a process of its own. It loads the model that it is first asked for."""

    def __init__(self) -> None:
        """Needs `missing()` to be empty. Raises `RuntimeError` where it does not start."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen([*PROGRAM, *OPTIONS, "--port", str(port), "--log-level", "error"])
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.close()
                raise RuntimeError("transformers serve did not start; what it said stands above.")
            time.sleep(0.2)  # between two looks

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except OSError:  # it has not begun
            return False

    def close(self) -> None:
        """Ends its process; safe to call twice."""
        with self._process as process:
            process.kill()
