"""Generated JSON schemas, answered by every strategy: `python -m tests.schemas --count 1000`. All answers parse."""

import argparse
import functools
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from parley.strategies import STRATEGIES

WORDS = ("name", "lamps", "kind", "owl", "tea", "sea", "river", "größe", "n-1", 'a "b"')
DEPTH = 2  # objects and lists within each other


def schema(chance: random.Random, depth: int = 0) -> dict[str, Any]:  # noqa: PLR0911  (one for each kind)
    """A schema whose values are short, so that a small model comes to their end."""
    plain = ["string", "integer", "number", "boolean", "null", "enum", "const"]
    kind = "object" if not depth else chance.choice(plain + ["array", "object", "any"] * (depth < DEPTH))
    if kind == "object":
        names = chance.sample(WORDS, chance.randint(1, 3))
        return {
            "type": "object",
            "properties": {name: schema(chance, depth + 1) for name in names},
            "required": names[: chance.randint(1, len(names))],
            "additionalProperties": False,
        }
    if kind == "array":
        return {"type": "array", "items": schema(chance, depth + 1), "minItems": chance.randint(0, 1), "maxItems": 2}
    if kind == "any":
        return {"anyOf": [schema(chance, depth + 1), schema(chance, depth + 1)]}
    if kind == "enum":
        return {"enum": chance.sample([*WORDS, 3, -1.5, True, None], 3)}
    if kind == "const":
        return {"const": chance.choice([*WORDS, 12, False])}
    if kind == "string":
        return {"type": "string", "minLength": chance.randint(0, 2), "maxLength": chance.randint(2, 6)}
    if kind in ("integer", "number"):
        low = chance.randint(-50, 50)
        bounds = {"minimum": low, "maximum": low + chance.randint(0, 500)}
        return {"type": kind, **bounds} if kind == "integer" else {"type": "number", **bounds, "multipleOf": 0.5}
    return {"type": kind}


def check_object(wanted: dict[str, Any], value: Any) -> bool:  # noqa: PLR0911  (one for each kind)
    """Whether a value fits such a schema, by its definition."""
    if "anyOf" in wanted:
        return any(check_object(each, value) for each in wanted["anyOf"])
    if "enum" in wanted or "const" in wanted:
        return any(value == each and type(value) is type(each) for each in wanted.get("enum", [wanted.get("const")]))
    match wanted["type"]:
        case "object":
            known, needed = wanted["properties"], wanted["required"]
            inside = isinstance(value, dict) and set(needed) <= set(value) <= set(known)
            return inside and all(check_object(known[name], each) for name, each in value.items())
        case "array":
            fits = isinstance(value, list) and wanted["minItems"] <= len(value) <= wanted["maxItems"]
            return fits and all(check_object(wanted["items"], each) for each in value)
        case "string":
            return isinstance(value, str) and wanted.get("minLength", 0) <= len(value) <= wanted["maxLength"]
        case "integer" | "number" as kind:
            number = isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
            return number and wanted["minimum"] <= value <= wanted["maximum"]
        case "boolean":
            return isinstance(value, bool)
    return value is None


class Made(NamedTuple):
    """What came of generated schemas."""

    wrong: list[str]  # whole answers that do not fit their schema
    cut: Counter[str]  # answers that ended at the limit of tokens, before their form did, of each strategy
    fitting: Counter[str]


def generate(engine: Any, count: int, seed: int = 0, told: Callable[[str], None] = lambda _: None) -> Made:
    """Asks for so many answers, with one strategy after the other. An answer that was cut is counted apart."""
    from tests.engines.openvino.asking import SHORT, answer

    chance, wrong, cut, fitting = random.Random(seed), list[str](), Counter[str](), Counter[str]()
    for number in range(count):
        strategy, wanted = list(STRATEGIES)[number % len(STRATEGIES)], schema(chance)
        values = {"strategy": strategy, "seed": number, "max_new_tokens": 400}
        made = answer(engine, SHORT, answer_form="json_schema", answer_pattern=wanted, **values)
        try:
            fits = check_object(wanted, json.loads(made.text))
        except ValueError:
            fits = False
        if fits:
            fitting[strategy] += 1
        elif made.finish == "length":
            cut[strategy] += 1
        else:
            wrong.append(f"{strategy}: {made.text!r} ({made.finish}) for {json.dumps(wanted)}")
            told(wrong[-1])
        told(f"{number + 1} of {count}: {fitting.total()} fit, {cut.total()} were cut, {len(wrong)} are wrong")
    return Made(wrong, cut, fitting)


def main() -> int:
    """Returns the exit status."""
    from tests.conftest import engine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    made = generate(engine(), given.count, given.seed, told=functools.partial(print, flush=True))
    for strategy in STRATEGIES:
        print(f"{strategy}: {made.fitting[strategy]} fit, {made.cut[strategy]} were cut")
    print(*made.wrong, sep="\n")
    return bool(made.wrong)


if __name__ == "__main__":
    sys.exit(main())
