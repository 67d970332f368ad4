"""The drawn part of the exam: copying and recall, put together by a seed from words that the corpus never has."""

import tomllib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from training.corpus.phrases import fill

COUNTRIES = ("France", "Japan", "Peru", "Norway")


@cache
def load() -> dict[str, Any]:
    """exam_draws.toml."""
    return tomllib.loads((Path(__file__).parent / "exam_draws.toml").read_text(encoding="utf-8"))


@cache
def drawn_words() -> frozenset[str]:
    """Every word that only the exam may use."""
    return frozenset(word for words in load()["words"].values() for word in words.split())


def values(rng: Random) -> dict[str, str]:
    """A value for each slot of the wordings and phrases."""
    kinds = {kind.removesuffix("s"): words.split() for kind, words in load()["words"].items()}
    slots: dict[str, str] = {}
    for kind in ("noun", "adjective", "verb", "place", "name", "made_up"):
        chosen = rng.sample(kinds[kind], 3)
        slots |= {kind: chosen[0], f"{kind}2": chosen[1], f"{kind}3": chosen[2]}
    slots["number"] = str(rng.randint(10, 999_999))
    return slots | {"a": str(rng.randint(0, 10)), "b": str(rng.randint(0, 10)), "country": rng.choice(COUNTRIES)}


def turn_by_turn(rng: Random, listed: list[Any], count: int) -> list[Any]:
    """`count` entries of `listed`: each equally often, in random order."""
    rounds = [rng.sample(listed, len(listed)) for _ in range(-(-count // len(listed)))]
    return [entry for each in rounds for entry in each][:count]


def copying(rng: Random) -> list[list[str]]:
    """Rows of one turn and the phrase that it asks for."""
    entry, rows = load()["copying"], []
    wordings = turn_by_turn(rng, entry["wordings"], entry["count"])
    for wording, phrase in zip(wordings, turn_by_turn(rng, entry["phrases"], entry["count"]), strict=True):
        said = fill(phrase, values(rng))
        rows.append([wording.replace("{x}", said), said])
    return rows


def recall(rng: Random) -> list[list[str]]:
    """Rows of a fact, up to three turns of something else, the question for the fact, and its value."""
    entry, rows = load()["recall"], []
    for told, asked in turn_by_turn(rng, entry["wordings"], entry["count"]):
        slots = values(rng)
        between = [fill(text, values(rng)) for text in rng.sample(entry["between"], rng.randint(0, 3))]
        value = next(value for slot, value in slots.items() if f"{{{slot}}}" in told)
        rows.append([fill(told, slots), *between, asked, value])
    return rows


def drawn_rows(seed: int) -> dict[str, tuple[str, list[list[str]]]]:
    """For each drawn skill its check and its rows, as exam.toml writes them."""
    rng = Random(seed)
    return {"copying_afresh": ("exactly", copying(rng)), "recall_afresh": ("says", recall(rng))}
