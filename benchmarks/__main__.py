"""Everything that is measured, in one run: `python -m benchmarks` writes results.json, the README's table and chart.

`--quick` takes under two minutes, measures the smaller shape only, and writes nothing. What is not installed is left
out: OpenVINO; llama.cpp is fetched where there is npm.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import chart, measures, peers, quality, shapes
from benchmarks.measures import Row
from parley import readme

RESULTS = Path(__file__).parent / "results.json"
CHART = readme.README.parent / "docs" / "first-token.svg"

# What the README says of each figure: what is measured, and what it is compared with.
MEANINGS = {
    "decode_vs_plain": "Decoding, beside `generate` in 32-bit floats with the stock streamer",
    "decode_vs_llamacpp_q8": "Decoding, beside llama.cpp with Q8_0",
    "decode_vs_llamacpp_q4": "Decoding, beside llama.cpp with Q4_0, half the bytes",
    "decode_torch_vs_plain": "Decoding where PyTorch answers, beside `generate` as above",
    "strategies_torch_vs_plain": "Every strategy where PyTorch answers, beside the same in 32-bit floats; "
    "the median, and the strategies that gain least and most",
    "prefill_vs_plain": "First token after 1,024 tokens of prompt, beside `generate` as above",
    "prefill_vs_llamacpp_q8": "First token after 1,024 tokens of prompt, beside llama.cpp with Q8_0",
    "prefill_vs_llamacpp_q4": "First token after 1,024 tokens of prompt, beside llama.cpp with Q4_0",
    "prefill_torch_vs_plain": "The same where PyTorch answers, beside `generate` as above",
    "prefix_ttft_1024": "First token after 1,024 tokens of talk, beside no prefix cache",
    "prefix_ttft_4096": "First token after 4,096 tokens of talk, beside no prefix cache",
    "lookup_copying": "Copying what the prompt says, which is guessed ahead, beside saying what it does not",
    "lookup_talking": "Exam questions, where there is little to guess, beside no guesses",
    "api_overhead": "128 tokens over the API, beside a bare `generate` in the server's process",
    "memory_int8": "Memory of the weights where PyTorch answers, beside 32-bit floats",
    "memory_process": "What a process takes for the model, both engines together, beside 32-bit floats",
    "start": "From `python app.py` until the page answers",
    "exam_int8": "Exam with int8 layers, beside 32-bit floats",
    "loglik_int8": "Mean log-likelihood of held-out dialogues with int8 layers, beside 32-bit floats",
    "exam_openvino": "Exam by OpenVINO int8, beside 32-bit floats",
    "loglik_openvino": "Mean log-likelihood of held-out dialogues by OpenVINO int8, beside 32-bit floats",
    "exam_bf16": "Exam in bfloat16, beside 32-bit floats",
    "loglik_bf16": "Mean log-likelihood of held-out dialogues in bfloat16, beside 32-bit floats",
}


def rows(quick: bool) -> Iterator[Row]:
    """All figures, each as soon as it is there. A quick run leaves out the second shape, the peers, what would have to
    be exported, and the longest talk.
    """
    rounds = 2 if quick else 5
    for name in list(shapes.SHAPES)[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            shape = shapes.apart(shapes.made, name, Path(folder), not quick)
            files = {} if quick or peers.missing() else peers.write(shape.floats.loaded.model, Path(folder))
            others = {f"llamacpp_{kind}": peers.LlamaCpp(file) for kind, file in files.items()}
            yield from measures.speed(shape, others, rounds)
            for other in others.values():
                other.close()
            if not quick:
                yield measures.strategies(shape, 2)
            yield measures.memory(shape)
            if not quick:
                yield measures.both(shape)
            yield measures.copying(shape, rounds)
            if name == next(iter(shapes.SHAPES)):
                for tokens in (1024,) if quick else (1024, 4096):
                    yield measures.prefix(shape, 1 if quick else rounds, tokens)
                if not quick:
                    CHART.write_text(chart.svg(measures.by_turn(shape.engine, 12)), "utf-8")
            del shape
    yield measures.talking(rounds)
    yield from quality.rows(quick)
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
    if not quick and (missing := peers.missing()):
        print(missing)
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
