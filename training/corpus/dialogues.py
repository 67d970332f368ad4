"""Whole conversations: free talk, facts told and asked back, system prompts, long chats."""

import re
import string
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from random import Random

from training.corpus import copying, creative, facts, skills
from training.corpus.phrases import dress, expand, fill, load, question, roughen, upper_first
from training.corpus.skills import WORDS, Turn, any_name, from_intent, intents, made_up

GENERATORS: dict[str, tuple[Callable[[Random], Turn], float]] = {
    "repeat": (skills.repeat, 16),
    "copy": (copying.copy, 24),
    "repeat_times": (skills.repeat_times, 1),
    "count": (skills.count, 16),
    "neighbour": (skills.neighbour, 1),
    "sums": (skills.sums, 16),
    "compare": (skills.compare, 8),
    "concept": (skills.concept, 22),
    "unknown": (skills.unknown, 22),
    "story": (creative.story, 10),
    "poem": (creative.poem, 5),
    "list": (creative.bullets, 16),
    "code": (creative.code, 4),
}
WEIGHTS = {name: weight for name, (_, weight) in GENERATORS.items()} | {k: i["weight"] for k, i in intents().items()}
BRIEF = [name for name in WEIGHTS if name not in ("story", "poem", "list", "code", "concept", "months", "alphabet")]
ONE_WORD = ["sums", "compare", "opposite", "colour_of", "sound", "capital", "day_after", "day_before", "month_after"]
ONE_WORD += ["month_before", "greet", "how_are_you", "thanks", "bye", "identity", "how_many", "likes"]
CAPITALS = [*ONE_WORD, "repeat", "copy", "feel_good", "unknown"]
PIRATE = [name for name in WEIGHTS if name not in ("list", "code", "poem", "emoji", "repeat", "copy", "repeat_times")]
NO_PUNCTUATION = str.maketrans("", "", "".join(set(string.punctuation) - set("+-*")))


@dataclass(frozen=True)
class Conversation:
    """Turns that belong together under one system prompt."""

    system: str | None
    turns: tuple[Turn, ...]
    think: bool  # the last answer begins with a thought


def pick(rng: Random, only: Collection[str] | None = None) -> Turn:
    """One turn of a skill drawn by weight, from `only` these skills."""
    names = list(only or WEIGHTS)
    name = rng.choices(names, [WEIGHTS[name] for name in names])[0]
    return GENERATORS[name][0](rng) if name in GENERATORS else from_intent(rng, name)


def free(rng: Random, length: int, only: Collection[str] | None = None) -> list[Turn]:
    """Turns of any kind; now and then one that leans on the question before it ("and Greece?")."""
    turns: list[Turn] = []
    while len(turns) < length:
        last = turns[-1].skill if turns else ""
        if last == "sums" and rng.random() < 0.25:
            turns.append(skills.sums(rng, follow=True))
        elif "follow" in intents().get(last, {}) and rng.random() < 0.35:
            turns.append(from_intent(rng, last, follow=True))
        else:
            turns.append(pick(rng, only))
    return turns


def told(rng: Random, facts: dict[str, str]) -> Turn:
    """The user tells one or two facts in one message."""
    memory = load("memory")
    patterns = [expand(rng, rng.choice(memory[kind]["tell"])).replace("{v}", f"{{{kind}}}") for kind in facts]
    text = rng.choice([" and ", ", and ", ". ", ", "]).join(patterns)
    first, value = next(iter(facts.items()))
    answer = rng.choice(memory[first]["ack"]).replace("{v}", value).replace("{V}", upper_first(value))
    user = fill(roughen(rng, dress(rng, text, closing=False), ending=False), facts)
    return Turn("told", user, answer, f"The user tells me something: {', '.join(facts.values())}.", "Okay")


def asked(rng: Random, kind: str, value: str | None) -> Turn:
    """The user asks a fact back; `value` is None when it was never told."""
    entry = load("memory")[kind]
    user = roughen(rng, dress(rng, question(rng, entry)))
    if value is None:
        start = rng.choice(["You", "I don't know, you"])
        answer = f"{start} have not told me {entry['missing']} yet."
        return Turn("not_told", user, answer, "The user did not tell me that yet.", "Unknown")
    answer = rng.choice(entry["answer"]).replace("{v}", value)
    return Turn("recall", user, answer, f"The user told me before: {value}.", value)


def remembering(rng: Random, gap: int) -> list[Turn]:
    """Facts told, up to `gap` turns of something else, the facts asked back, sometimes one never told."""
    memory = load("memory")
    kinds = rng.sample(list(memory), rng.choice([1, 1, 2, 2, 3]))
    if "name" not in kinds and rng.random() < 0.3:
        kinds[0] = "name"
    facts = {kind: skills.SLOTS[memory[kind]["slot"]](rng) for kind in kinds}
    together = len(kinds) > 1 and rng.random() < 0.35
    groups = [kinds[:2], *([kind] for kind in kinds[2:])] if together else [[kind] for kind in kinds]
    turns = [told(rng, {kind: facts[kind] for kind in group}) for group in groups]
    if len(turns) > 1 and rng.random() < 0.3:
        turns.insert(1, pick(rng, BRIEF))
    turns += free(rng, gap, BRIEF)
    order = rng.sample(kinds, rng.randint(1, len(kinds)))
    for kind in order:
        turns.append(asked(rng, kind, facts[kind]))
        if rng.random() < 0.2:
            turns.append(pick(rng, BRIEF))
    missing = [kind for kind in memory if kind not in kinds]
    if rng.random() < 0.25:
        turns.insert(rng.randint(1, len(turns)), asked(rng, rng.choice(missing), None))
    return turns


def copies(rng: Random) -> list[Turn]:
    """One to three copies; now and then what is to be copied is itself a question or an order."""
    turns = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        said = pick(rng, BRIEF).user if rng.random() < 0.08 else copying.phrase(rng)
        turns.append(copying.copy_of(rng, said))
    return turns


def remembering_any(rng: Random) -> list[Turn]:
    """Facts of any kind, up to four turns of something else, the facts asked back."""
    told, asked = facts.telling(rng)
    if rng.random() < 0.15:
        told.insert(rng.randint(0, len(told)), pick(rng, BRIEF))
    return told + free(rng, rng.choice([0, 0, 1, 1, 2, 3, 4]), BRIEF) + asked


def system_text(rng: Random, pattern: str, name: str) -> str:
    """A system prompt from `pattern`, with a lead or a second sentence now and then."""
    slots = {"name": name, "adj": rng.choice(WORDS["adjectives"]), "job": rng.choice(load("styles")["jobs"].split())}
    slots |= {"town": rng.choice(WORDS["towns"]), "noun": rng.choice(WORDS["nouns"])}
    text = expand(rng, pattern)
    if rng.random() < 0.2:
        leads = ["please ", "from now on, ", "your task: ", "important: ", "rule: ", "in this chat, "]
        text = rng.choice(leads) + text
    if rng.random() < 0.15:
        text += ". " + rng.choice(load("styles")["neutral"]).rstrip(".")
    return fill(upper_first(text) + rng.choice([".", ".", ".", "", "!"]) if rng.random() < 0.85 else text, slots)


def wrap(rng: Random, turn: Turn, style: str) -> Turn:
    """`turn` as that style answers it."""
    styles = load("styles")
    if style == "one_word":
        answer = turn.core.rstrip(".") + rng.choice([".", ""])
    elif style == "capitals":
        answer = turn.answer.upper()
    else:
        before, after = (expand(rng, styles[f"{style}_{place}"]) for place in ("before", "after"))
        answer = turn.answer if "\n" in turn.answer else " ".join(f"{before} {turn.answer} {after}".split())
    return replace(turn, answer=answer)


def who(rng: Random, name: str, style: str) -> Turn:
    """The question for the name that the system prompt gave."""
    styles = load("styles")
    forms = {form: styles[f"who_{form}"] for form in ("ask", "do", "thing", "clause")}
    user = fill(roughen(rng, dress(rng, question(rng, forms))), {"name": name})
    answer = fill(expand(rng, styles[f"who_{style}"]), {"name": name})
    return Turn("persona", user, answer, f"My name is {name}.", name)


def styled(rng: Random) -> tuple[str, list[Turn]]:
    """A system prompt that asks for a style or gives a name, and turns that follow it."""
    styles = load("styles")
    style = rng.choice(
        ["pirate", "one_word", "capitals", "butler", "persona", "persona", "one_word", "capitals", "capitals"]
    )
    name = any_name(rng) if rng.random() < 0.6 else upper_first(made_up(rng, 2))
    system = system_text(rng, rng.choice(styles[style]), name)
    pools = {"pirate": PIRATE, "one_word": ONE_WORD, "capitals": CAPITALS}
    pool = pools.get(style, [skill for skill in BRIEF if skill not in ("identity", "repeat", "copy", "greet")])
    turns = free(rng, rng.choice([1, 2, 2, 3]), pool)
    if style in ("butler", "persona"):
        turns = [wrap(rng, turn, style) for turn in turns] if style == "butler" else turns
        turns.insert(rng.randint(0, len(turns)), who(rng, name, style))
        return system, turns
    turns = [turn for turn in turns if style != "one_word" or turn.core]
    return system, [wrap(rng, turn, style) for turn in turns]


def conversation(rng: Random) -> Conversation:
    """One conversation of any kind."""
    system, think = None, rng.random() < 0.12
    kind = rng.random()
    if kind < 0.34:
        return Conversation(None, tuple(copies(rng) if kind < 0.17 else remembering_any(rng)), think)
    kind = rng.random()
    if kind < 0.50:
        turns = free(rng, rng.choices([1, 2, 3, 4, 5], [6, 3, 2, 1, 1])[0])
        if rng.random() < 0.08:
            turns.insert(rng.randint(0, len(turns)), asked(rng, rng.choice(list(load("memory"))), None))
    elif kind < 0.71:
        turns = remembering(rng, rng.choice([0, 0, 1, 1, 2, 3, 4]))
    elif kind < 0.91:
        system, turns = styled(rng)
    elif kind < 0.99:
        system = rng.choice(load("styles")["neutral"])
        turns = remembering(rng, rng.choice([0, 1, 2])) if rng.random() < 0.25 else free(rng, rng.choice([1, 1, 2]))
    else:
        turns = [*free(rng, rng.randint(3, 8)), *remembering(rng, rng.randint(4, 10)), *free(rng, rng.randint(2, 6))]
    return Conversation(system, tuple(turns), think)


def normalise(text: str) -> str:
    """`text` in lower case without punctuation (a sum keeps its sign): two wordings are the same if these are."""
    return " ".join(text.lower().translate(NO_PUNCTUATION).split())


def conversations(
    seed: int, *, held_out: Collection[str] = frozenset(), values: Collection[str] = ()
) -> Iterator[Conversation]:
    """An endless corpus without any user turn or system prompt of `held_out` (normalised) or any word of `values`."""
    rng = Random(seed)
    words = {value.lower() for value in values if value.isalpha()}
    symbols = [value for value in values if not value.isalpha()]
    while True:
        made = conversation(rng)
        texts = [turn.user for turn in made.turns] + ([made.system] if made.system else [])
        if not made.turns or any(normalise(text) in held_out for text in texts):
            continue
        said = "\n".join(texts + [turn.answer for turn in made.turns]).lower()
        if not words.isdisjoint(re.findall(r"\w+", said)) or any(symbol in said for symbol in symbols):
            continue
        yield made
