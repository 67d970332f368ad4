"""Budgie, the bundled tiny chat model, and its draft: where their folders are. Imports nothing heavy."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
DRAFT = Path(__file__).parent / "draft"
