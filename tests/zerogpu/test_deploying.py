"""An upload of the repository as it stands is a Space: small files, a valid front matter, requirements for ZeroGPU.

That it also runs is shown by `test_worker`, which starts a copy of the upload.
"""

import importlib.metadata
import os
import subprocess

import pytest
from huggingface_hub import SpaceCard, SpaceHardware
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.conftest import ROOT
from tests.zerogpu import upload

# What ZeroGPU has, by its documentation of August 2026.
PYTHON = "3.12.12"
TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
LATER_TORCH = ("2.11.1", "2.12.0", "2.13.0", "3.0.0")
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
WITHOUT_LFS = 10_000_000  # bytes


def requirements():
    """Those that hold for ZeroGPU's Python, by name."""
    lines = filter(None, (ROOT / "requirements.txt").read_text().splitlines())
    there = {**default_environment(), "python_version": "3.12", "python_full_version": PYTHON}
    return {r.name: r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate(there)}


def test_no_file_of_the_upload_needs_lfs_and_none_that_is_needed_is_missing():
    files = upload.files()
    assert [name for name in files if (ROOT / name).stat().st_size > WITHOUT_LFS] == []
    assert {"app.py", "README.md", "requirements.txt", "parley/budgie/weights/model.safetensors"} <= set(files)
    assert not [name for name in files if "__pycache__" in name or name.startswith((".git/", ".venv", ".cache"))]


def test_the_front_matter_is_what_the_hub_accepts():
    data = SpaceCard.load(ROOT / "README.md").data
    assert {data.colorFrom, data.colorTo} <= COLOURS
    assert len(data.emoji) == 1 and not data.emoji.isascii()
    assert data.suggested_hardware in [hardware.value for hardware in SpaceHardware]
    assert data.pinned is False
    assert len(data.short_description) <= 60
    assert f"=={data.sdk_version}" == str(requirements()["gradio"].specifier)
    assert data.python_version == PYTHON.rpartition(".")[0]


def test_the_requirements_are_for_the_python_and_torch_of_zerogpu():
    torch = requirements()["torch"].specifier
    assert all(torch.contains(version) for version in TORCH)
    assert not any(torch.contains(version) for version in LATER_TORCH), "pip would take the newest"
    for name, requirement in requirements().items():
        installed = importlib.metadata.metadata(name)
        assert SpecifierSet(installed["Requires-Python"] or "").contains(Version(PYTHON)), name
        assert name == "torch" or requirement.specifier.contains(installed["Version"]), name


@pytest.mark.skipif("PYTHON_312" not in os.environ, reason="may load gigabytes: name a Python 3.12 in PYTHON_312")
@pytest.mark.timeout(900)
def test_pip_finds_versions_that_go_together():
    command = [os.environ["PYTHON_312"], "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    ran = subprocess.run([*command, "-r", "requirements.txt"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = ran.stdout.rpartition("Would install")[2].split()
    assert next(name for name in found if name.startswith("torch-")).removeprefix("torch-") in TORCH
