"""Facts of any kind that the user tells and asks back, made by rule."""

from dataclasses import dataclass
from random import Random
from typing import Any

from training.corpus.copying import SLOTS_OF_FACTS, new_word, word
from training.corpus.phrases import dress, expand, fill, load, question, roughen, upper_first
from training.corpus.skills import Turn

LEADS = ["", "", "", "", "", "remember that ", "please remember: ", "you should know that ", "by the way, "]
LEADS += ["keep in mind that ", "just so you know, ", "did you know that ", "I tell you that ", "note that ", "today "]
FIRST = ["Okay", "Got it", "I will remember that"]


@dataclass(frozen=True)
class Fact:
    """A fact with the slots that it shares with the question for it."""

    row: dict[str, Any]
    slots: dict[str, str]

    @property
    def value(self) -> str:
        """What the user may ask back."""
        return self.slots["v"]


def split(rng: Random, pairs: str, mark: str) -> tuple[str, str]:
    """One of the pairs "a=b c=d", or now and then a made-up verb and its past."""
    if rng.random() < 0.35:
        verb = new_word(rng)
        return verb, verb + "ed"
    first, second = rng.choice(pairs.split()).split(mark)
    return first.replace(":", " "), second.replace(":", " ")


def fact(rng: Random, things: list[str]) -> Fact:
    """A fact about one of `things`, which it takes out of the list."""
    table = load("facts_told")
    row = rng.choice(table["fact"])
    thing = new_word(rng) if rng.random() < 0.45 else things.pop()
    named, calling = split(rng, table["named"], "=")
    verb, past = split(rng, table["verbs"], "=")
    doing, _, preposition = rng.choice(table["doings"].split()).partition(":")
    slots = {"o": rng.choice(table["owners"]), "s": thing, "j": word(rng, "adjectives"), "made": new_word(rng)}
    slots |= {"b": verb, "B": past, "N": named, "N2": calling if calling + "ed" != named else named}
    if named.endswith("ed") and calling == named + "ed":  # a made-up pair comes as verb and past
        slots |= {"N": calling, "N2": named}
    slots |= {"d": new_word(rng) if rng.random() < 0.3 else doing, "dp": f" {preposition}" if preposition else ""}
    for key, known in (("st", "states"), ("lk", "likes")):
        slots[key] = new_word(rng) if rng.random() < 0.35 else rng.choice(table[known].split())
    slots |= {"c": rng.choice(table["callers"]), "p": rng.choice(load("copying")["prepositions"].split())}
    return Fact(row, slots | {"v": SLOTS_OF_FACTS[row["slot"]](rng)})


def tell(rng: Random, facts: list[Fact]) -> tuple[Turn, list[int]]:
    """The user tells these facts in one message; also which wording each of them has."""
    chosen = [rng.randrange(len(each.row["tell"])) for each in facts]
    parts = [
        fill(roughen(rng, expand(rng, each.row["tell"][place]), ending=False), each.slots)
        for each, place in zip(facts, chosen, strict=True)
    ]
    text = rng.choice([" and ", ". ", ", ", "; ", "\n"]).join(parts)
    user = dress(rng, rng.choice(LEADS) + text, closing=False)
    values = " and ".join(each.value for each in facts)
    answer = f"{rng.choice(FIRST)}: {values}."
    return Turn("told", user, answer, f"The user tells me something: {values}.", "Okay"), chosen


def ask(rng: Random, each: Fact, place: int | None) -> Turn:
    """The user asks a fact back that was told in that wording, or for None one that was never told."""
    row = each.row
    phrase = rng.choice(row["ask"])
    if row.get("paired") and place is not None:
        phrase = row["ask"][place]
    pattern = question(rng, {"ask": [phrase], "do": [phrase]}) if rng.random() < 0.2 and "?" not in phrase else phrase
    user = fill(roughen(rng, dress(rng, expand(rng, pattern))), each.slots)
    if place is None:
        return Turn(
            "not_told", user, "You have not told me that yet.", "The user did not tell me that yet.", "Unknown"
        )
    answer = upper_first(fill(rng.choice(row["answer"]), each.slots))
    return Turn("recall", user, answer, f"The user told me before: {each.value}.", each.value)


def telling(rng: Random) -> tuple[list[Turn], list[Turn]]:
    """Messages that tell one to four facts, and the questions for some of them, one now and then never told."""
    things = load("facts_told")["things"].split()
    rng.shuffle(things)
    facts = [fact(rng, things) for _ in range(rng.choice([1, 1, 2, 2, 3, 4]))]
    told, places = [], []
    rest = list(facts)
    while rest:
        group = [rest.pop() for _ in range(min(len(rest), rng.choice([1, 1, 1, 2, 3])))]
        turn, chosen = tell(rng, group)
        told.append(turn)
        places += list(zip(group, chosen, strict=True))
    asked = [ask(rng, each, place) for each, place in rng.sample(places, rng.randint(1, len(places)))]
    if rng.random() < 0.15:
        asked.insert(rng.randint(0, len(asked)), ask(rng, fact(rng, things), None))
    return told, asked
