"""Ask several strategies one question, side by side: python examples/compare_strategies.py [address] [question]"""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from gradio_client import Client

COLUMNS: list[dict] = [
    {"strategy": "greedy"},
    {"strategy": "beams", "num_beams": 4},
    {"strategy": "sampling", "temperature": 1.2, "seed": 7},
]
FIGURES = ("tokens", "tokens_per_second", "perplexity", "distinct_2")


def compare(address: str, question: str, columns: list[dict], **settings: Any) -> list[dict]:
    """The answers, in the order of the columns. `settings` hold for all of them."""
    asked = [settings | column for column in columns]
    job = Client(address, verbose=False).submit(question, asked, api_name="/compare")
    for comparison in job:  # all that there is so far, several times a second
        words = "  ".join(f"{each['strategy']} {len(each['text'].split())}" for each in comparison["columns"])
        print(f"\r{words} words", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return comparison["columns"]


def side_by_side(columns: list[dict], width: int) -> Iterator[str]:
    """The lines of a table: the names, the answers, and the figures of each column."""
    each_width = width // len(columns) - 3
    cells = [
        [
            column["strategy"],
            "",
            *textwrap.wrap(column["error"] or column["text"], each_width),
            "",
            *(f"{name}: {column['figures'][name]:.4g}" for name in FIGURES if column["figures"][name] is not None),
        ]
        for column in columns
    ]
    for row in zip_longest(*cells, fillvalue=""):
        yield "   ".join(cell.ljust(each_width) for cell in row).rstrip()


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    address, question = given.get(0, "http://127.0.0.1:7860"), given.get(1, "Tell me a story about an owl.")
    answers = compare(address, question, COLUMNS, model="budgie", max_new_tokens=60)
    print("\n".join(side_by_side(answers, shutil.get_terminal_size((100, 24)).columns)))
