"""The letters of the languages that are written in Latin, and words made of them."""

import unicodedata
from random import Random

RANGES = [(0xC0, 0x180), (0x1A0, 0x1A2), (0x1AF, 0x1B1), (0x218, 0x21C), (0x1EA0, 0x1EFA)]
LATIN = [chr(point) for begin, end in RANGES for point in range(begin, end) if chr(point).isalpha()]
MARKS = list("\u2018\u2019“”„«»\u2013—…¿¡")
UNCOMPOSED = {"a": "æ", "o": "øœ", "d": "đð", "l": "ł", "t": "þŧ", "s": "ß", "h": "ħ", "i": "\u0131", "n": "ŋ"}
RARE = "xqzjvkwyhfxqzj"


def _variants() -> dict[str, str]:
    """For each plain letter those that are made of it with a mark, or stand for it."""
    found = dict(UNCOMPOSED)
    for letter in LATIN:
        plain = unicodedata.normalize("NFD", letter)[0]
        if plain != letter and letter.islower():
            found[plain] = found.get(plain, "") + letter
    return found


VARIANTS = _variants()


def accented(rng: Random, word: str, share: float) -> str:
    """`word` with about that share of its letters changed into variants, at least one where that is possible."""
    able = [place for place, letter in enumerate(word) if letter.lower() in VARIANTS]
    if not able:
        return word
    chosen = {rng.choice(able), *(place for place in able if rng.random() < share)}
    return "".join(_variant(rng, letter) if place in chosen else letter for place, letter in enumerate(word))


def _variant(rng: Random, letter: str) -> str:
    changed = rng.choice(VARIANTS[letter.lower()])
    return changed.upper() if letter.isupper() and len(changed.upper()) == 1 else changed


def rare_letters(rng: Random) -> str:
    """A word of letters that English seldom puts together."""
    vowels = "aeiouy"
    return "".join(rng.choice(vowels if rng.random() < 0.3 else RARE) for _ in range(rng.randint(3, 8)))
