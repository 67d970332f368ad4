"""The notebook runs from its first cell to its last, with the real model."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_the_notebook_runs_with_the_real_model(real_model, monkeypatch):
    monkeypatch.setenv("MODEL", str(real_model))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(ROOT / "examples" / "from_parrot_to_llm.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # what is kept is the source alone
    folder = {"metadata": {"path": str(ROOT / "examples")}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=folder).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "--- beam search" in said and "with the KV cache" in said
