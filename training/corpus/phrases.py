"""Turns phrase patterns into user text: alternatives, frames, politeness, casing, typos, slots.

A pattern holds alternatives, "[a|b]", which nest, and slots, "{x}". Slots are filled last, so that nothing here
ever changes the letters of a value that the answer must repeat.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"(\{\w+\})")
FORMS = {"ask": 4, "do": 3, "thing": 3, "clause": 2}  # how often each form of a question is taken


@cache
def load(name: str) -> dict[str, Any]:
    """The table `name`.toml beside this file."""
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))


def expand(rng: Random, pattern: str) -> str:
    """`pattern` with one alternative of each "[a|b]"."""
    while match := ALTERNATIVES.search(pattern):
        pattern = pattern[: match.start()] + rng.choice(match[1].split("|")) + pattern[match.end() :]
    return pattern


def tidy(text: str) -> str:
    """`text` without doubled or stray spaces."""
    return re.sub(r" +", " ", re.sub(r" +([?.!,])", r"\1", text)).strip()


def fill(text: str, slots: Mapping[str, str]) -> str:
    """`text` with its slots replaced by their values."""
    return SLOT.sub(lambda match: slots[match[0][1:-1]], text)


def question(rng: Random, forms: Mapping[str, Sequence[str]], *, last: bool = False) -> str:
    """One wording of a question: a phrase of `forms` ("ask", "do", "thing", "clause") set into a frame.

    Small talk has only "ask" and stays as it is. With `last`, nothing follows the phrase.
    """
    present = [form for form in FORMS if form in forms]
    form = rng.choices(present, [FORMS[form] for form in present])[0]
    phrase = expand(rng, rng.choice(forms[form]))
    if present == ["ask"] or (form != "clause" and rng.random() < 0.25):
        return phrase
    frames = [frame for frame in load("frames")[form] if not last or frame.rstrip("?").endswith("{p}")]
    return expand(rng, rng.choice(frames)).replace("{p}", phrase)


def dress(rng: Random, text: str, *, closing: bool = True) -> str:
    """`text` with an opening and a closing now and then; no closing where it could be taken for a value."""
    if rng.random() < 0.22:
        text = expand(rng, rng.choice(load("frames")["opener"])) + " " + text
    if closing and rng.random() < 0.15:
        end = text[-1] if text[-1] in "?.!" else ""
        closer = expand(rng, rng.choice(load("frames")["closer"]))
        text = text.rstrip("?.!") + ("" if closer.startswith(",") else " ") + closer + end
    return text


def roughen(rng: Random, text: str, *, ending: bool = True) -> str:
    """`text` as people type it: casing, a typo, missing punctuation. Slots stay as they are."""
    casing = rng.random()
    parts = [part if SLOT.fullmatch(part) else scribble(rng, part, casing) for part in SLOT.split(text)]
    text = "".join(parts)
    if casing > 0.75 and text[0] != "{":
        text = text[0].upper() + text[1:]
    drop = rng.random()
    if drop < 0.25 and not text.endswith("{x}."):
        text = text.rstrip("?.!") or text
    elif drop < 0.30 and ending:
        text = text.rstrip("?.!") + rng.choice(["!", "!!", ".", "??", " ?", "..."])
    return tidy(text)


def scribble(rng: Random, text: str, casing: float) -> str:
    """A part without slots, in lower case for a `casing` below 0.3, sometimes with a typo or no apostrophes."""
    text = text.lower() if casing < 0.3 else text.upper() if casing < 0.32 else text
    text = misspell(rng, text) if rng.random() < 0.05 else text
    return text.replace("'", "") if rng.random() < 0.1 else text


def misspell(rng: Random, text: str) -> str:
    """`text` with two letters swapped, one lost or one doubled."""
    if len(text) < 7:
        return text
    at = rng.randrange(1, len(text) - 2)
    if not text[at : at + 2].isalpha():
        return text
    swap, lose, double = text[at + 1] + text[at], text[at + 1], text[at] + text[at : at + 2]
    return text[:at] + rng.choices([swap, lose, double], [5, 3, 2])[0] + text[at + 2 :]


def upper_first(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """ "a cat", "an owl"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
