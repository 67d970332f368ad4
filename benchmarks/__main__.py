"""Everything that is measured, in one run: `python -m benchmarks` writes results.json and docs/benchmarks.md.

`--many` measures and writes only the part about many chats at once, which says its own machine. With another flag it
only prints: `--quick` measures the most important in about two minutes, `--engines` what each engine gives on the
machine at hand and whether the plan agrees, `--only NAME…` single figures or groups of them. llama.cpp is left out
where it is not installed and npm cannot fetch it.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: F401  (with all threads, before anything that is imported for tests asks for one)
from transformers.utils import logging

from benchmarks import api, chart, decoding, engines, many, memory, peers, processor, quality, transformers_serve
from benchmarks.figures import FIGURES, OVER_HTTP
from benchmarks.measures import ROUNDS, Row
from benchmarks.models import Models, all_models
from tools import readme_tables

RESULTS = Path(__file__).parent / "results.json"
PAGE = readme_tables.DOCS / "benchmarks.md"
CHART = readme_tables.DOCS / "first-token.svg"
CHART_TURNS = 12
CHART_MANY = readme_tables.DOCS / "many-chats.svg"


@dataclass(frozen=True)
class Run:
    """What is to be measured."""

    models: Models
    rounds: int
    names: Collection[str]  # of figures
    shapes: bool = True  # also the models that are only shapes

    def among(self, names: Collection[str]) -> list[str]:
        """Those of these names, of strategies, that begin the name of a figure."""
        return [each for each in names if any(f"{each}_vs_{other}" in self.names for other in ("greedy", "stock"))]

    @property
    def lengths(self) -> list[int]:
        """Of conversations, in tokens."""
        return [n for n in (1024, 4096) if {f"next_turn_{n}", f"next_turn_{n}_after_pause"} & set(self.names)]


# What measures the figures whose names begin so, in the order of the run.
GROUPS: dict[str, tuple[tuple[str, ...], Callable[[Run], Iterator[Row]]]] = {
    "decode": (
        ("decode",),
        lambda run: decoding.decode(run.models, run.rounds, run.shapes, "decode_vs_plain" in run.names),
    ),
    "prefill": (
        ("prefill",),
        lambda run: decoding.prefill(run.models, run.rounds, run.shapes, "prefill_vs_plain" in run.names),
    ),
    "strategies": (
        tuple(decoding.SETTINGS),
        lambda run: decoding.strategies(run.models, run.rounds, run.among(decoding.SETTINGS)),
    ),
    "copying": (("copying",), lambda run: decoding.copying(run.models, run.rounds)),
    "talking": (("talking",), lambda run: decoding.talking(run.models, run.rounds)),
    "talking_sampling": (("talking_sampling",), lambda run: decoding.talking_sampling(run.models, run.rounds)),
    "drafts": (
        decoding.DRAFTING,
        lambda run: decoding.drafts(run.models, run.rounds, run.among(decoding.DRAFTING)),
    ),
    "next_turn": (("next_turn",), lambda run: decoding.next_turn(run.models, run.rounds, run.lengths)),
    "budgie": (("budgie_engine",), lambda run: api.budgie(run.models, run.rounds)),
    "api": (
        ("budgie_api", "way"),
        lambda run: api.over_api(run.models, run.rounds, [name for name in api.WAYS if name in run.names]),
    ),
    "start": (("start",), lambda run: api.starting(run.models, run.rounds)),
    "memory": (("memory", "load"), lambda run: memory.rows(run.models, run.shapes)),
    "quality": (("text", "questions"), lambda run: quality.of_smollm2(run.models)),
    "exam": (("exam", "loglik"), lambda run: quality.of_budgie(run.models)),
    "many": (("many",), lambda run: many.many(run.models, run.rounds, run.shapes)),
    "engines": (("engine", "plan"), lambda run: engines.compare(run.models, run.rounds)),
}
QUICK = ("decode_vs_plain", "prefill_vs_plain", "copying", "next_turn_1024", "budgie_engine", "memory_held")


def begins(name: str, start: str) -> bool:
    """Whether a name is this one, or goes on after it with another word."""
    return name == start or name.startswith(f"{start}_")


def group_of(figure: str) -> str:
    """The group that measures it: that with the longest name that it begins with."""
    starts = {start: group for group, (each, _) in GROUPS.items() for start in each if begins(figure, start)}
    return starts[max(starts, key=len)]


def chosen(asked: Sequence[str]) -> list[str]:
    """The figures that are meant by names of figures, of groups, or by their beginnings; `ValueError` for none."""
    found = []
    for name in asked:
        meant = [figure for figure in FIGURES if group_of(figure) == name or begins(figure, name)]
        if not meant:
            raise ValueError(f"nothing is called {name}; the groups are {', '.join(GROUPS)}")
        found += meant
    return list(dict.fromkeys(found))


def rows(run: Run) -> Iterator[Row]:
    """The figures that are asked for, each as soon as it is there."""
    for group, (_, measure) in GROUPS.items():
        if any(group_of(name) == group for name in run.names):
            yield from (row for row in measure(run) if row.name in run.names)


def table(figures: Sequence[Row]) -> str:
    """The table of docs/benchmarks.md, in the order of `FIGURES`."""
    ordered = sorted(figures, key=lambda row: list(FIGURES).index(row.name))
    return readme_tables.table(["measured", "model", "Parley", "beside", "ratio"], map(_cells, ordered))


def part(results: dict[str, Any]) -> str:
    """What stands in docs/benchmarks.md: the table, and on what it was measured."""
    measured = [Row(**row) for row in results["rows"]]
    return f"{table(measured)}\n\n{processor.sentence(results['machine'])}" if measured else "None yet."


def many_part(results: dict[str, Any]) -> str:
    """The same of many chats, with their chart."""
    picture = f"![Tokens a second of all chats together, by the number of chats]({CHART_MANY.name})"
    return f"{part(results)}\n\n{picture}" if results["rows"] else part(results)


def _cells(row: Row) -> list[str]:
    return [FIGURES[row.name].meaning, row.model, *_figures(row)]


def _figures(row: Row) -> list[str]:
    digits = 4 if row.unit == "nats/token" else 3  # they differ in the last
    theirs = "" if row.baseline is None else f"{number(row.baseline, digits)} {row.unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    if row.low != row.high:
        ratio += f" ({row.low:.2f} to {row.high:.2f})"
    return [f"{number(row.ours, digits)} {row.unit}", theirs, ratio]


def number(figure: float, digits: int) -> str:
    """To so many digits, and in full where it is large."""
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.{digits}g}"


def line(row: Row) -> str:
    """A figure for the terminal, with what was asked of it."""
    ours, theirs, ratio = _figures(row)
    told = f"{row.name}, {row.model}: {ours}"
    told += f", beside {theirs}: {ratio}" if theirs else ""
    verdict = FIGURES[row.name].verdict(row)
    return f"{told}  [{verdict}]" if verdict else told


def busy() -> str:
    """How many processes want to compute, for whoever reads figures of a machine that others use."""
    return "load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()) if hasattr(os, "getloadavg") else "load not known"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only see whether all is as usual")
    parser.add_argument("--engines", action="store_true", help="only what each engine gives here")
    parser.add_argument("--many", action="store_true", help="only the part about many chats at once")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only figures or groups of these names")
    parser.add_argument("--update", action="store_true", help="write these figures in place of the earlier ones")
    parser.add_argument("--no-shapes", action="store_true", help="leave out models of random weights")
    parser.add_argument("--rounds", type=int, help=f"instead of {ROUNDS}; only together with another flag")
    given = parser.parse_args()
    given.prints = given.quick or given.engines or bool(given.only)
    if given.update and not given.only:
        parser.error("--update is for the figures that --only names")
    if given.many and given.prints:
        parser.error("--many writes its part of the page: give no other flag with it, or --only many to see it")
    if (given.rounds or given.no_shapes) and (given.update or not given.prints):
        parser.error("docs/benchmarks.md takes figures of full runs only")
    try:
        asked = chosen(given.only or [])
    except ValueError as error:
        parser.error(str(error))
    asked += chosen(["engines"]) if given.engines else []
    asked += QUICK if given.quick else []
    asked += OVER_HTTP if given.many else []
    given.names = asked or list(FIGURES)
    return given


def main() -> None:
    """The command line."""
    given = arguments()
    logging.disable_progress_bar()
    formats = [kind for kind in peers.FORMATS if any(name.endswith(f"llamacpp_{kind}") for name in given.names)]
    reasons = [peers.missing()] if formats else []
    reasons += [transformers_serve.missing()] if "many_greedy_vs_transformers" in given.names else []
    for reason in filter(None, reasons):
        print(reason)
    machine = processor.describe()
    measured: list[Row] = []
    print(processor.sentence(machine), busy(), flush=True)
    with all_models(formats) as models:
        rounds = given.rounds or (1 if given.quick else ROUNDS)
        for row in rows(Run(models, rounds, given.names, not (given.quick or given.no_shapes))):
            print(line(row), flush=True)
            measured.append(row)
        if not given.prints and not given.many:
            CHART.write_text(chart.svg(decoding.by_turn(models.smollm2, CHART_TURNS)), "utf-8")
    print(busy())
    if given.update:
        update(measured, machine)
    elif not given.prints:
        write(measured, machine, only_many=given.many)


def results_of(measured: Sequence[Row], machine: dict[str, Any]) -> dict[str, Any]:
    """Figures, and on what they were measured, as plain data."""
    return {"machine": machine, "rows": [dataclasses.asdict(row) for row in measured]}


def write(measured: Sequence[Row], machine: dict[str, Any], only_many: bool) -> None:
    """Writes the figures of a whole run."""
    of_many = [row for row in measured if row.name in OVER_HTTP]
    others = [row for row in measured if row.name not in OVER_HTTP]
    before = json.loads(RESULTS.read_text("utf-8"))
    results = before if only_many else results_of(others, machine)
    results["many"] = results_of(of_many, machine)
    write_results(results)


def update(measured: Sequence[Row], machine: dict[str, Any]) -> None:
    """Writes these figures in place of the earlier ones. Raises `ValueError` where those are of another machine."""
    results = json.loads(RESULTS.read_text("utf-8"))
    for part_of, names in ((results, set(FIGURES) - set(OVER_HTTP)), (results["many"], set(OVER_HTTP))):
        new = {(row.name, row.model): dataclasses.asdict(row) for row in measured if row.name in names}
        if new and part_of["machine"] != machine:
            raise ValueError("The other figures are of another machine or of other versions: measure all of them.")
        part_of["rows"] = [new.pop((row["name"], row["model"]), row) for row in part_of["rows"]] + list(new.values())
    write_results(results)


def write_results(results: dict[str, Any]) -> None:
    """Writes results.json, the page and the chart of many chats."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    text = readme_tables.between(PAGE.read_text("utf-8"), "figures", part(results))
    PAGE.write_text(readme_tables.between(text, "many", many_part(results["many"])), "utf-8")
    CHART_MANY.write_text(chart.by_chats(many.by_chats([Row(**row) for row in results["many"]["rows"]])), "utf-8")


if __name__ == "__main__":
    main()
