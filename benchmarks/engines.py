"""What each engine gives on the machine at hand, and whether the plan takes the best of them."""

import functools
import itertools
from collections.abc import Callable, Iterator

from benchmarks import measures
from benchmarks.measures import (
    Row,
    alone,
    ask,
    beside,
    cost,
    decode_speed,
    endless,
    first_token,
    in_turn,
    question,
    row,
    without_drafts,
)
from benchmarks.models import Model, Models, engine
from parley.engines.local_engine import LocalEngine
from parley.models import hardware
from parley.models.load_plan import LoadPlan

NEW = 32  # tokens of an answer
PROMPT = 128  # tokens that are read


def ways(model: Model) -> dict[str, LocalEngine]:
    """Each engine that the plan may take on a CPU, by a name as `name_of` gives it."""
    made: dict[str, LocalEngine] = {}
    for quantization, threads in itertools.product(("int8", "none"), range(1, hardware.cpu_threads() + 1)):
        each = engine(model.row, threads, ENGINE="openvino", QUANTIZATION=quantization)
        made[name_of(each.loaded.plan)] = each
    for quantization in ("none", "int8"):
        each = engine(model.row, ENGINE="transformers", QUANTIZATION=quantization)
        made[name_of(each.loaded.plan)] = each
    return made


def name_of(fit: LoadPlan) -> str:
    """For people: the engine, the numbers and the threads."""
    threads = fit.threads if fit.engine == "openvino" else hardware.cpu_threads()
    return f"{fit.engine} {fit.numbers}, {threads} {'thread' if threads == 1 else 'threads'}"


def compare(models: Models, rounds: int) -> Iterator[Row]:
    """Each engine's speed on the real model, then that of the plan's choice beside the fastest of all others."""
    model = models.smollm2
    made = ways(model)
    long = [*measures.history(model.engine.loaded, PROMPT), *question()]
    timed: dict[str, Callable[[], float]] = {}
    for name, each in made.items():
        timed[name] = functools.partial(lambda e: decode_speed(cost(ask(e, question(), NEW))), each)
        timed[f"{name} "] = functools.partial(lambda e: first_token(cost(ask(e, long, 1))), each)
    with endless(*(each.loaded for each in made.values())), without_drafts():
        taken = in_turn(rounds, timed)
    for name in made:
        yield alone("engine_decode", f"{model.name}, {name}", "tokens/s", [each[name] for each in taken])
        yield alone("engine_prefill", f"{model.name}, {name}", "s", [each[f"{name} "] for each in taken])
    chosen = name_of(model.engine.loaded.plan)
    speeds = {name: measures.alone("", "", "", [each[name] for each in taken]).ours for name in made}
    other = max((name for name in made if name != chosen), key=lambda name: speeds[name])
    yield row("plan", f"{model.name}: {chosen}, beside {other}", "tokens/s", beside(taken, chosen, other))
