"""Generates docs/faults.md from the table of the tests: `python -m tools.faults_table`."""

from pathlib import Path

from tests.faults.table import FAULTS
from tools.readme_tables import table

PAGE = Path(__file__).parent.parent / "docs" / "faults.md"
HEAD = """# Faults

What may go wrong, and what whoever asks reads then. `tests/faults` brings each of these about in the running app, and
looks at three things: the sentence, the text that had come, which stays, and the next turn, which is answered. This
page is written by `python -m tools.faults_table`. A … stands for what depends on the model or the machine.

What may go wrong between a visitor and a GPU of ZeroGPU is in `tests/zerogpu/faults.py`.

"""
WHOLE = "None: the answer is whole."


def page() -> str:
    """The whole page."""
    kept = {True: "yes", False: "there is none"}
    rows = ([name, row.how, row.sentence or WHOLE, kept[row.keeps]] for name, row in FAULTS.items())
    return HEAD + table(["fault", "how it is brought about", "sentence", "text kept"], rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
