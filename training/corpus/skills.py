"""Single turns: one question with its answer, its thought and, where there is one, its answer in one word."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from training.corpus.phrases import dress, expand, fill, load, question, roughen, tidy, upper_first, with_article

WORDS = {name: value.split() for name, value in load("words").items() if isinstance(value, str)}
PLURALS = load("words")["plurals"]
NUMBERS = WORDS["numbers"]


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    skill: str
    user: str
    answer: str
    thought: str
    core: str = ""  # the answer in one word, if there is one


def ring(values: list[str], step: int) -> dict[str, str]:
    """Each value with the one `step` places on."""
    return {value: values[(i + step) % len(values)] for i, value in enumerate(values)}


@cache
def tables() -> dict[str, dict[str, str]]:
    """The tables that intents look their slots up in."""
    days, months = WORDS["days"], WORDS["months"]
    rings = {"next_day": ring(days, 1), "previous_day": ring(days, -1)}
    rings |= {"next_month": ring(months, 1), "previous_month": ring(months, -1)}
    return rings | load("facts")["tables"] | load("talk")["tables"]


@cache
def intents() -> dict[str, dict[str, Any]]:
    """The skills that are only data, by name."""
    return {intent["name"]: intent for intent in load("facts")["intent"] + load("talk")["intent"]}


def made_up(rng: Random, syllables: int | None = None) -> str:
    """A word that nobody knows."""
    count = syllables or rng.choice([1, 2, 2, 2, 3])
    parts = []
    for _ in range(count):
        coda = rng.choice(WORDS["codas"]) if rng.random() < 0.55 else ""
        parts.append(rng.choice(WORDS["onsets"]) + rng.choice(WORDS["vowels"]) + coda)
    return "".join(parts)


def any_word(rng: Random) -> str:
    """A word to remember or repeat."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(WORDS["nouns"])
    if kind < 0.75:
        return made_up(rng)
    return upper_first(made_up(rng)) if kind < 0.85 else rng.choice(WORDS["names"] + WORDS["towns"])


def any_name(rng: Random) -> str:
    """A name, often a made-up one."""
    return rng.choice(WORDS["names"]) if rng.random() < 0.55 else upper_first(made_up(rng, rng.choice([2, 2, 3])))


def either(kind: str, share: float) -> Callable[[Random], str]:
    """A slot that is a known word of `kind` in `share` of the cases and else a made-up one."""
    return lambda rng: rng.choice(WORDS[kind]) if rng.random() < share else made_up(rng)


SLOTS: dict[str, Callable[[Random], str]] = {
    "any_word": any_word,
    "any_name": any_name,
    "any_animal": either("animals", 0.6),
    "any_food": either("foods", 0.6),
    "any_town": lambda rng: upper_first(either("towns", 0.5)(rng)),
    "colour": either("colours", 0.65),
    "two_digits": lambda rng: str(rng.randint(1, 99)),
}


def finish(
    rng: Random, skill: str, pattern: str, slots: Mapping[str, str], *, answer: str, thought: str, core: str = ""
) -> Turn:
    """The turn for a question pattern and an answer pattern; the question is made rough, the answer is not."""
    user = tidy(fill(roughen(rng, dress(rng, pattern)), slots))
    replies = (fill(expand(rng, text), slots).strip() for text in (answer, thought, core))
    return Turn(skill, user, *replies)


def from_intent(rng: Random, name: str, *, follow: bool = False) -> Turn:
    """A turn of a skill that is only data; with `follow`, one that leans on the turn before."""
    intent = intents()[name]
    slots = {"animal": rng.choice(WORDS["animals"]), "nouns": rng.choice(WORDS["nouns"]) + "s"}
    if "table" in intent:
        table = tables()[intent["table"]]
        x, y = rng.choice(list(table.items()))
        slots |= {"x": x, "y": y, "X": upper_first(x), "Y": upper_first(y), "ax": with_article(x)}
        slots |= {"AX": upper_first(slots["ax"]), "xs": PLURALS.get(x, x + "s")}
        slots["c2"] = rng.choice([colour for colour in ("red", "green", "blue", "yellow", "black") if colour != y])
    pattern = expand(rng, rng.choice(intent["follow"])) if follow else question(rng, intent)
    if "{x2}" in pattern:  # "cat says meow, and dog?": the second animal is asked for
        other = rng.choice([key for key in table if key != x])
        pattern = pattern.replace("{x}", "{x0}").replace("{y}", "{y0}").replace("{x2}", "{x}")
        slots |= {"x0": other, "y0": table[other]}
    user_slots = slots
    if "x" in slots and rng.random() < 0.2:
        user_slots = slots | {"x": slots["x"].lower()}
    user = fill(roughen(rng, dress(rng, pattern)), user_slots)
    answer, thought = (fill(expand(rng, text), slots) for text in (rng.choice(intent["answer"]), intent["thought"]))
    return Turn(name, user, answer.strip(), thought, fill(intent.get("core", ""), slots))


def payload(rng: Random) -> str:
    """Something to repeat: words, made-up words, digits, a sentence, a little of other scripts."""
    kind = rng.random()
    pick = {name: rng.choice(values) for name, values in WORDS.items()}
    if kind < 0.32:
        return any_word(rng)
    if kind < 0.60:
        pool = WORDS["nouns"] + WORDS["colours"] + WORDS["animals"] + WORDS["adjectives"]
        count = rng.choice([2, 2, 3, 3, 4, 5, 6])
        return " ".join(rng.choice(pool) if rng.random() < 0.65 else made_up(rng) for _ in range(count))
    if kind < 0.70:
        return "".join(rng.choices("0123456789", k=rng.randint(1, 7)))
    if kind < 0.86:
        patterns = ["{n} {v} {f}", "the {a} {v} {f}", "my {j} {o} is {j2}", "{n} and {m}", "I am {j}", "the {j} {a}"]
        patterns += ["the {o} is {j}", "I like {f} and {f2}", "a {j} {a} in the {o}", "{n} is a {j} {a}", "{o}, {o2}"]
        slots = {"n": any_name(rng), "m": any_name(rng), "v": pick["verbs"], "f": SLOTS["any_food"](rng)}
        slots |= {"a": SLOTS["any_animal"](rng), "j": pick["adjectives"], "o": pick["nouns"], "f2": pick["foods"]}
        slots |= {"j2": rng.choice(WORDS["adjectives"]), "o2": rng.choice(WORDS["nouns"])}
        return fill(rng.choice(patterns), slots)
    return foreign(rng)


def foreign(rng: Random) -> str:
    """Emoji, accents or other scripts to repeat."""
    kind = rng.random()
    if kind < 0.35:
        return "".join(rng.choices(WORDS["symbols"], k=rng.choice([1, 1, 1, 2, 3])))
    if kind < 0.70:
        letters = list(rng.choice([made_up(rng), made_up(rng, 2), rng.choice(WORDS["nouns"])]))
        for _ in range(rng.choice([1, 1, 2, 3])):
            letters.insert(rng.randint(1, len(letters)), rng.choice(WORDS["letters"]))
        word = "".join(letters)
        return upper_first(word) if rng.random() < 0.3 else word
    if kind < 0.85:
        return rng.choice(WORDS["accents"] + WORDS["scripts"])
    return "".join(rng.choices(rng.choice([WORDS["thai"], WORDS["kana"]]), k=rng.randint(1, 4)))


def repeat(rng: Random) -> Turn:
    """Something to repeat, word for word."""
    forms = load("exercises")["repeat"]
    x = payload(rng)
    pattern = dress(rng, question(rng, forms, last=True), closing=False)
    user = fill(roughen(rng, pattern, ending=False), {"x": x})
    return Turn("repeat", user, x, f"The user wants me to repeat: {x}", x if " " not in x else "")


def repeat_times(rng: Random) -> Turn:
    """A word to say two or three times."""
    x, count = any_word(rng), rng.choice([2, 3])
    slots = {"x": x, "n": rng.choice([NUMBERS[count], str(count)])}
    user = fill(roughen(rng, question(rng, load("exercises")["repeat_times"]), ending=False), slots)
    return Turn("repeat_times", user, " ".join([x] * count), f"I must say {x} {NUMBERS[count]} times.")


def count(rng: Random) -> Turn:
    """Counting up or down."""
    kind = rng.choices(["count_up", "count_to", "count_down", "count_down_one"], [4, 4, 2, 1])[0]
    low, high = sorted(rng.sample(range(25), 2))
    if kind in ("count_to", "count_down_one"):
        low, high = 1, rng.randint(3, 20)
    down = kind.startswith("count_down")
    numbers = range(high, low - 1, -1) if down else range(low, high + 1)
    ends = {"a": numbers[0], "b": numbers[-1]}
    shown = {key: NUMBERS[end] if end < 21 and rng.random() < 0.1 else str(end) for key, end in ends.items()}
    answer = ", ".join(map(str, numbers)) + "."
    thought = f"I count {'down ' if down else ''}from {numbers[0]} to {numbers[-1]}: {answer}"
    return finish(rng, "count", question(rng, load("exercises")[kind]), shown, answer=answer, thought=thought)


def neighbour(rng: Random) -> Turn:
    """The number after or before another."""
    word, step = rng.choice([("after", 1), ("before", -1)])
    number = rng.randint(1, 24)
    slots = {"a": str(number), "r": str(number + step)}
    answer, thought = f"[{upper_first(word)} {{a}} comes {{r}}.|{{r}}.|It is {{r}}.]", "The number is {r}."
    pattern = question(rng, load("exercises")[f"{word}_number"])
    return finish(rng, "neighbour", pattern, slots, answer=answer, thought=thought, core="{r}")


def sums(rng: Random, *, follow: bool = False) -> Turn:
    """A sum of numbers from 0 to 10, or a difference; with `follow`, "and 2 + 3?"."""
    minus = not follow and rng.random() < 0.2
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    a, b = (max(a, b), min(a, b)) if minus else (a, b)
    result = a - b if minus else a + b
    forms = load("exercises")["difference" if minus else "sum"]
    pattern = expand(rng, rng.choice(forms["follow"])) if follow else question(rng, forms)
    words = rng.random() < 0.15
    sign, verb = ("-", "minus") if minus else ("+", "plus")
    slots = {"a": NUMBERS[a] if words else str(a), "b": NUMBERS[b] if words else str(b), "name": any_name(rng)}
    things = [word + "s" for word in rng.sample(WORDS["nouns"], 2)]
    slots |= {"ns": things[0], "ns2": things[1]}
    answer = rng.choice([f"{a} {sign} {b} = {result}", f"{a} {sign} {b} = {result}.", f"{a} {verb} {b} is {result}."])
    return finish(rng, "sums", pattern, slots, answer=answer, thought=f"{a} {verb} {b} is {result}.", core=str(result))


def compare(rng: Random) -> Turn:
    """The bigger or the smaller of two numbers."""
    top = 20 if rng.random() < 0.7 else 100
    a, b = rng.sample(range(top + 1), 2)
    bigger = rng.random() < 0.6
    best, other, word = (max(a, b), min(a, b), "bigger") if bigger else (min(a, b), max(a, b), "smaller")
    answer = f"[{best} is {word} than {other}.|{best} is {word} than {other}.|{best} is {word}.]"
    pattern = question(rng, load("exercises")[word])
    slots = {"a": str(a), "b": str(b)}
    thought = f"I compare {a} and {b}. {best} is {word}."
    return finish(rng, "compare", pattern, slots, answer=answer, thought=thought, core=str(best))


def concept(rng: Random) -> Turn:
    """A term of decoding, explained."""
    table = load("concepts")
    entry = rng.choice(table["concept"])
    name = rng.choice(entry["names"])
    pattern = question(rng, {form: table[form] for form in ("ask", "do", "thing", "clause")})
    if name.endswith("s") and name not in ("logits",) and rng.random() < 0.8:
        pattern = pattern.replace("what is {p}", "what are {p}").replace("does {p}", "do {p}")
    thought = f"The user asks about {name}. I explain it in short."
    return finish(rng, "concept", pattern, {"p": name}, answer=rng.choice(entry["answers"]), thought=thought)


def unknown(rng: Random) -> Turn:
    """A question that Budgie cannot answer, and says so."""
    table = load("unknown")
    answer, thought = rng.choice(table["answer"]), rng.choice(table["thought"])
    if rng.random() < 0.08:
        a, b = rng.sample([rng.randint(11, 999), rng.randint(0, 999)], 2)
        pattern, slots = rng.choice(table["sum"]), {"a": str(a), "b": str(b)}
        answer = rng.choice(table["big_sum"])
        return finish(rng, "unknown", pattern, slots, answer=answer, thought=thought, core="Unknown")
    pattern = question(rng, table)
    slots = {name: rng.choice(values.split("|")) for name, values in table["slots"].items()}
    slots |= {f"{name}2": rng.choice(table["slots"][name].split("|")) for name in ("topic", "field")}
    for kind in ("nouns", "towns", "animals", "foods", "names"):
        slots[kind[:-1]], slots[kind[:-1] + "2"] = rng.sample(WORDS[kind], 2)
    slots["adj"] = rng.choice(WORDS["adjectives"])
    slots |= {"fake": made_up(rng), "fakename": upper_first(made_up(rng, 3)), "year": str(rng.randint(1100, 2035))}
    slots |= {"big": str(rng.randint(11, 999)), "small": str(rng.randint(2, 12))}
    slots |= {"country": rng.choice(list(tables()["capitals"])), "madeup": rng.choice(WORDS["countries_made_up"])}
    return finish(rng, "unknown", pattern, slots, answer=answer, thought=thought, core="Unknown")
