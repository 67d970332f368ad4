"""The Dockerfile, tried as far as it can be without Docker: its files, read-only, its variables and its command."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest
from gradio_client import Client

from tests.conftest import ROOT, Space, lacking

TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def instructions(name):
    return re.findall(rf"^{name} (.*)$", TEXT, re.MULTILINE)


def test_the_server_runs_as_a_user_without_a_home_who_gets_the_signals():
    (user,) = instructions("USER")
    assert user != "root" and re.search(rf"useradd --no-create-home .* {user}\b", TEXT)
    (command,) = instructions("CMD")[-1:]
    assert json.loads(command) == ["python", "app.py"], "no shell, which would keep the signals for itself"
    assert json.loads(re.search(r"HEALTHCHECK .* CMD\s+(\[.*\])", TEXT)[1])[0] == "python"


def test_all_that_is_copied_exists_and_a_secret_is_not_among_it():
    for copied in instructions("COPY"):
        assert (ROOT / copied.split()[0]).exists()
    assert ".git" in (ROOT / ".dockerignore").read_text().split()


class Container(Space):
    """The app from a folder that nobody can write to, with the variables of the image and without a home."""

    def __init__(self, folder, scratch):
        self.folder = folder
        variables = dict(each.split("=", 1) for line in instructions("ENV") for each in line.split())
        self.variables = {name: re.sub("^/(tmp|models)", f"{scratch}/\\1", v) for name, v in variables.items()}
        super().__init__(HOME=str(scratch / "home"), **self.variables)


def can_be_forbidden():
    """What runs a command with no right of root to write everywhere; nothing where this is not root."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        lacking("root can write everywhere, and this machine has no setpriv")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


@pytest.mark.slow
def test_it_answers_and_ends_where_it_can_write_to_its_scratch_space_only(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        folder, scratch = Path(name, "app"), Path(name, "scratch")
        for each in (folder, scratch / "tmp", scratch / "models", scratch / "home"):
            each.mkdir(parents=True)
        for copied in [line.split()[0] for line in instructions("COPY")]:
            source, goal = ROOT / copied, folder / copied
            shutil.copytree(source, goal, ignore=shutil.ignore_patterns("*.pyi")) if source.is_dir() else shutil.copy(
                source, goal
            )
        for each in [*folder.rglob("*"), folder, scratch / "home"]:
            each.chmod(each.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        before = sorted(folder.rglob("*"))
        started = subprocess.Popen
        monkeypatch.setattr(
            subprocess, "Popen", lambda command, **how: started([*can_be_forbidden(), *command], **how)
        )
        space = Container(folder, scratch)
        try:
            assert Client(space.url, verbose=False).predict("Hello!", api_name="/chat").strip()
            with urllib.request.urlopen(f"{space.url}/healthz", timeout=60) as answer:
                assert answer.read() == b"ok\n"
            space.process.send_signal(signal.SIGTERM)
            assert space.process.wait(60) == 0
            assert not re.search("Traceback|Read-only|Permission denied", space.output()), space.output()
            assert sorted(folder.rglob("*")) == before and not list((scratch / "home").iterdir())
        finally:
            space.close()
            for each in [folder, *folder.rglob("*"), scratch / "home"]:
                each.chmod(0o700)
