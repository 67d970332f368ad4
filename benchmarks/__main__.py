"""Everything that is measured, in one run: `python -m benchmarks` writes results.json, the README's table and chart.

`--quick` takes under two minutes, measures the smaller shape only, and writes nothing. A figure beside llama.cpp is
not taken yet.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks import chart, measures, shapes
from benchmarks.measures import Row
from parley import readme

RESULTS = Path(__file__).parent / "results.json"
CHART = readme.README.parent / "docs" / "first-token.svg"

# What the README says of each figure: what is measured, and what it is compared with.
MEANINGS = {
    "decode_vs_plain": "Decoding, beside `generate` in 32-bit floats with the stock streamer",
    "prefill_vs_plain": "First token after 1,024 tokens of prompt, beside the same",
    "prefix_ttft_1024": "First token after 1,024 tokens of talk, beside no prefix cache",
    "prefix_ttft_4096": "First token after 4,096 tokens of talk, beside no prefix cache",
    "lookup_copying": "Copying with prompt lookup, beside greedy search",
    "api_overhead": "128 tokens over the API, beside a bare `generate` in the same process",
    "memory_int8": "Memory of the weights, beside 32-bit floats",
    "start": "From `python app.py` until the page answers",
}


def rows(quick: bool) -> Iterator[Row]:
    """All figures, each as soon as it is there."""
    rounds = 2 if quick else 5
    for model, shape in list(shapes.SHAPES.items())[: 1 if quick else None]:
        engine, floats, text = shapes.apart(shapes.pair, shape)
        yield from measures.speed(model, engine, floats, rounds)
        yield measures.memory(model, engine, floats)
        yield measures.copying(model, engine, text, rounds)
        if shape is shapes.smollm2_135m:
            for tokens in (1024, 4096):
                yield measures.prefix(model, engine, 1 if quick else rounds, tokens)
            if not quick:
                CHART.write_text(chart.svg(measures.by_turn(engine, 12)), "utf-8")
        del engine, floats
    yield measures.starting(1 if quick else 5)
    yield measures.api("SmolLM2-135M shape", rounds)


def table(figures: list[Row]) -> str:
    """The README's table, in the order of `MEANINGS`."""
    ordered = sorted(figures, key=lambda row: list(MEANINGS).index(row.name))
    return readme.table(["measured", "model", "Parley", "beside", "ratio"], map(_cells, ordered))


def _cells(row: Row) -> list[str]:
    theirs = "" if row.baseline is None else f"{row.baseline:,.3g} {row.unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    if row.low != row.high:
        ratio += f" ({row.low:.2f} to {row.high:.2f})"
    return [MEANINGS[row.name], row.model, f"{row.ours:,.3g} {row.unit}", theirs, ratio]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see whether all is as usual; writes nothing")
    quick = parser.parse_args().quick
    figures = []
    for row in rows(quick):
        print(row, flush=True)
        figures.append(row)
    if not quick:
        RESULTS.write_text(json.dumps([dataclasses.asdict(row) for row in figures], indent=1) + "\n", "utf-8")
        text = readme.README.read_text("utf-8")
        readme.README.write_text(readme.between(text, "figures", table(figures)), "utf-8")


if __name__ == "__main__":
    main()
