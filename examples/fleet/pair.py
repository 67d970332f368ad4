"""Two real `transformers serve` behind HAProxy, on this machine: python examples/fleet/pair.py [port]

Needs haproxy (apt-get install haproxy) and what `transformers serve` needs (pip install "transformers[serving]").
"""

import csv
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

CONFIG = Path(__file__).with_name("haproxy.cfg")
NAMES = ("one", "two")
SECONDS = 120.0  # until both have to answer


class Pair:
    """Two engines and their balancer, from here until `close`. Each loads the model that it is first asked for."""

    def __init__(self, port: int = 0) -> None:
        # Debian puts it where only root's shell looks.
        if not (haproxy := shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")):
            raise SystemExit("There is no haproxy on this machine: apt-get install haproxy.")
        address = f"127.0.0.1:{port or _free_port()}"
        places = {name: f"127.0.0.1:{_free_port()}" for name in NAMES}
        self.url = f"http://{address}/v1"
        self._stats = f"http://{address}/stats;csv"
        self.engines = {name: _serve(place) for name, place in places.items()}
        known = {"BALANCER": address, **{name.upper(): place for name, place in places.items()}}
        self.balancer = subprocess.Popen([haproxy, "-db", "-f", CONFIG], env={**os.environ, **known})
        deadline = time.monotonic() + SECONDS
        while len(self.alive()) < len(NAMES):
            if time.monotonic() > deadline or self.balancer.poll() is not None:
                self.close()
                raise SystemExit(f"The pair did not answer within {SECONDS:.0f} seconds.")
            time.sleep(0.2)  # between two looks

    def alive(self) -> list[str]:
        """The engines that the balancer sends somebody to."""
        return [row["svname"] for row in self._rows() if row["status"].startswith("UP")]

    def busy(self) -> list[str]:
        """Those that answer somebody now."""
        return [row["svname"] for row in self._rows() if row["scur"] != "0"]

    def kill(self, name: str) -> None:
        """Ends one at once, in the middle of whatever it does."""
        self.engines[name].kill()
        self.engines[name].wait()

    def close(self) -> None:
        """Ends all three."""
        for process in (self.balancer, *self.engines.values()):
            process.kill()
            process.wait()

    def _rows(self) -> list[dict[str, str]]:
        try:
            with urllib.request.urlopen(self._stats, timeout=5) as page:
                lines = page.read().decode().removeprefix("# ").splitlines()
        except OSError:  # it has not begun
            return []
        return [row for row in csv.DictReader(lines) if row["svname"] in NAMES]


def _serve(address: str) -> subprocess.Popen:
    host, port = address.split(":")
    program = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    return subprocess.Popen([*program, "--host", host, "--port", port, "--device", "cpu", "--dtype", "float32"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(port: int = 8080) -> None:
    """Starts the pair, says how to use it, and ends it with Ctrl-C."""
    pair = Pair(port)
    pids = " or ".join(f"kill -9 {process.pid}" for process in pair.engines.values())
    print(
        f"Two engines answer at {pair.url}. From another terminal, in the folder of this repository:\n\n"
        f"  REMOTE_MODELS=parley/budgie/weights REMOTE_BASE_URL={pair.url} \\\n"
        "  REMOTE_SETTINGS=temperature,top_p,seed,thinking python app.py\n\n"
        f"Ask for something long, and then: {pids}"
    )
    try:
        pair.balancer.wait()
    except KeyboardInterrupt:
        pair.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
