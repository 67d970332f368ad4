"""Words that nobody knows, phrases of them, and every way to ask for a copy."""

from collections.abc import Callable
from random import Random

from training.corpus.letters import MARKS, accented, rare_letters
from training.corpus.phrases import dress, expand, fill, load, roughen, upper_first
from training.corpus.skills import SLOTS, WORDS, Turn, made_up, payload

ENDINGS = ["", "", "", "", "s", "er", "y", "le", "en", "ing", "ed", "ly", "ish", "ness", "ful", "et", "ow", "ia", "o"]
QUOTES = ['"{x}"', '"{x}"', '"{x}"', "'{x}'", "“{x}”", "«{x}»", "\u2018{x}\u2019"]
POOL = [word.lower() for kind in ("nouns", "names", "animals", "foods", "towns", "adjectives") for word in WORDS[kind]]
PAST = {"say": "said", "sing": "sung", "write": "written", "read": "read", "speak": "spoken", "show": "shown"}


def spliced(rng: Random) -> str:
    """The beginning of one word and the end of another: its letters follow each other as they do in English."""
    first, second = rng.choice(POOL), rng.choice(POOL)
    begin, end = first[: rng.randint(2, 5)], second[-rng.randint(2, 5) :]
    return begin + (end if rng.random() < 0.8 else "") + rng.choice(ENDINGS)


def new_word(rng: Random) -> str:
    """A word that no list holds."""
    return spliced(rng) if rng.random() < 0.7 else made_up(rng)


def word(rng: Random, kind: str) -> str:
    """A word of that list, or as often one that no list holds."""
    return rng.choice(WORDS[kind]) if rng.random() < 0.4 else new_word(rng)


def name(rng: Random) -> str:
    """A name: known, made-up, with accents or of rare letters."""
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(WORDS["names"])
    made = upper_first(new_word(rng) if kind < 0.9 else rare_letters(rng))
    return accented(rng, made, rng.choice([0.0, 0.2, 0.4, 0.8])) if 0.45 < kind < 0.95 else made


def digits(rng: Random) -> str:
    """A number, a time, a date, a price or a code."""
    number = "".join(rng.choices("0123456789", k=rng.choice([1, 2, 3, 3, 4, 4, 5, 6, 6, 7, 9, 12])))
    kind = rng.random()
    if kind < 0.7:
        return number
    two = [f"{rng.randint(0, 99):02}" for _ in range(3)]
    letters = "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=rng.randint(1, 3)))
    shapes = [f"{two[0]}:{two[1]}", f"{two[0]}.{two[1]}.19{two[2]}", f"{number}.{two[0]}", f"{letters}-{number}"]
    return rng.choice([*shapes, f"{two[0]}/{two[1]}", f"+{two[0]} {number}", f"{letters}{number}", f"{number} %"])


def phrase_slots(rng: Random) -> dict[str, str]:
    """A value for each slot of the phrases."""
    verbs = load("copying")["verbs_of_phrases"].split()
    slots = {key: word(rng, "nouns") for key in ("o", "o2", "o3")}
    slots |= {key: word(rng, "adjectives") for key in ("j", "j2", "j3")}
    slots |= {key: rng.choice(verbs) if rng.random() < 0.5 else new_word(rng) for key in ("v", "v2", "v3")}
    prepositions = load("copying")["prepositions"].split()
    return slots | {"n": name(rng), "m": name(rng), "d": digits(rng), "p": rng.choice(prepositions)}


def sentence(rng: Random) -> str:
    """A sentence or a part of one."""
    text = fill(rng.choice(load("copying")["phrases"]), phrase_slots(rng))
    return upper_first(text) if rng.random() < 0.15 else text


def words(rng: Random) -> str:
    """One to five words that have nothing to do with each other."""
    return " ".join(new_word(rng) if rng.random() < 0.7 else rng.choice(POOL) for _ in range(rng.randint(1, 5)))


# What is copied, and how often each kind is.
PHRASES: list[tuple[Callable[[Random], str], float]] = [
    (sentence, 0.36),
    (words, 0.16),
    (lambda rng: " ".join(name(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))), 0.18),
    (lambda rng: accented(rng, new_word(rng), rng.random()), 0.08),
    (rare_letters, 0.04),
    (digits, 0.06),
    (lambda rng: new_word(rng) + rng.choice(MARKS) + new_word(rng), 0.02),
    (payload, 0.10),
]


def phrase(rng: Random) -> str:
    """Something to copy: a sentence, words, names with accents, rare letters, numbers."""
    makers, weights = zip(*PHRASES, strict=True)
    return rng.choices(makers, weights)[0](rng)


def wording(rng: Random) -> str:
    """A request to copy {x}."""
    table = load("copying")
    verb = new_word(rng) if rng.random() < 0.3 else rng.choice(table["verbs"])
    parts = {key: expand(rng, rng.choice(table[f"{key}s"])) for key in ("lead", "object", "adverb")}
    if rng.random() < 0.1:
        parts["adverb"] = new_word(rng)
    first, *rest = verb.split()
    ended = first + ("d" if first.endswith("e") else "ed")
    parts |= {"verb": verb, "verbed": " ".join([PAST.get(first, ended), *rest]), "q": rng.choice(QUOTES)}
    pattern = expand(rng, rng.choice(table["layouts"]))
    filled = fill(pattern, {"x": "{x}", "w": "{w}"} | parts)
    while "{w}" in filled:
        filled = filled.replace("{w}", word(rng, "nouns"), 1)
    return filled


def copy_of(rng: Random, said: str) -> Turn:
    """A request for a copy of `said`, and the copy."""
    pattern = dress(rng, wording(rng), closing=False)
    user = fill(roughen(rng, pattern, ending=False), {"x": said})
    return Turn("copy", user, said, f"The user wants me to repeat: {said}", said if " " not in said else "")


def copy(rng: Random) -> Turn:
    """A request for a copy of a phrase."""
    return copy_of(rng, phrase(rng))


SLOTS_OF_FACTS = {
    "name": name,
    "self": name,
    "value": lambda rng: rng.choice([new_word, name, lambda rng: rng.choice(POOL)])(rng),
    "number": digits,
    "place": lambda rng: rng.choice(["the ", "the ", "my ", "a "]) + word(rng, "nouns"),
    "town": lambda rng: name(rng) if rng.random() < 0.6 else SLOTS["any_town"](rng),
    "object": lambda rng: rng.choice(["", "a ", "the ", "some "]) + word(rng, "nouns"),
}
