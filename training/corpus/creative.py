"""Stories, poems, lists and code blocks, put together from parts."""

from random import Random

from training.corpus.phrases import expand, fill, load, question, upper_first, with_article
from training.corpus.skills import NUMBERS, WORDS, Turn, any_name, finish, tables


def story_text(rng: Random, bird: str, name: str, adjective: str | None = None) -> str:
    """Three to six sentences about one bird."""
    parts = load("stories")
    first, second = rng.sample(parts["adjectives"].split(), 2)
    other = rng.choice([kind for kind in WORDS["birds"] if kind != bird])
    slots = {"n": name, "b": bird, "o": other, "ao": with_article(other), "adj": adjective or first, "adj2": second}
    slots |= {"place": rng.choice(parts["places"]), "thing": rng.choice(parts["things"])}
    sentences = [rng.choice(parts["openers"]), rng.choice(parts["wishes"])]
    sentences += rng.sample(parts["events"], rng.choice([0, 1, 1, 2]))
    sentences += [*rng.sample(parts["acts"], rng.choice([0, 1, 1])), rng.choice(parts["endings"])]
    text = fill(expand(rng, " ".join(sentences)), slots)
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def story(rng: Random) -> Turn:
    """A story, asked for in general or about a bird, often by name."""
    parts = load("stories")
    bird = rng.choice(WORDS["birds"])
    if rng.random() < 0.4:
        pattern = question(rng, {"ask": parts["ask_story"], "do": parts["do_story"]})
        text = story_text(rng, bird, rng.choice(parts["names"].split()))
        thought = "The user wants a story. I make one up about a bird."
        return finish(rng, "story", pattern, {}, answer=text, thought=thought)
    phrase = expand(rng, rng.choice(parts["about_bird"]))
    given = "{n}" in phrase
    name = any_name(rng) if given or rng.random() < 0.3 else rng.choice(parts["names"].split())
    adjective = rng.choice(parts["adjectives"].split())
    pattern = question(rng, {"ask": parts["ask_about"], "do": parts["do_about"]}).replace("{p}", phrase)
    text = story_text(rng, bird, name, adjective if "{adj}" in phrase else None)
    thought = f"The user wants a story about {with_article(bird)}" + (f" named {name}." if given else ".")
    slots = {"n": name, "b": bird, "ab": with_article(bird), "adj": adjective}
    return finish(rng, "story", pattern, slots, answer=text, thought=thought)


def poem(rng: Random) -> Turn:
    """Three or four lines, on a topic if one is named."""
    parts = load("stories")
    topic = rng.choice(parts["poem_topics"]) if rng.random() < 0.5 else "the " + rng.choice(WORDS["nouns"])
    named = rng.random() < 0.55
    about, verbs = parts["about_poem"], ("write", "write me", "give me", "compose", "recite", "invent")
    forms = {"ask": parts["ask_poem"], "do": parts["do_poem"]}
    if named:
        forms = {"thing": about, "do": [f"{verb} {poem}" for verb in verbs for poem in about]}
    first = fill(rng.choice(parts["poem_general"]), {"t": topic, "T": upper_first(topic)})
    lines = [f"{first},", f"{rng.choice(parts['poem_middle'])},", f"{rng.choice(parts['poem_last'])}."]
    if rng.random() < 0.3:
        lines.insert(2, f"{rng.choice([line for line in parts['poem_middle'] if line not in lines[1]])},")
    thought = f"The user wants a poem about {topic}." if named else "The user wants a poem. I write a few lines."
    return finish(rng, "poem", question(rng, forms), {"t": topic}, answer="\n".join(lines), thought=thought)


def bullets(rng: Random) -> Turn:
    """So many things of a kind, as bullets or numbered."""
    parts = load("stories")
    label, kind = rng.choice(list(parts["list_kinds"].items()))
    count = rng.choice([2, 3, 3, 4, 4, 5, 6])
    # neighbours in a ring: what comes next depends on what was written last, so that greedy decoding never repeats
    known = (WORDS.get(kind) or list(tables()["capitals"]))[:15]
    start = rng.randrange(len(known))
    chosen = [known[(start + i) % len(known)] for i in range(count)]
    numbered = rng.random() < 0.25
    pattern = question(rng, {"ask": parts["list_asks"], "do": parts["list_frames"]})
    if numbered:
        plain = pattern.rstrip("?")
        framed = expand(rng, rng.choice(parts["numbered"])).replace("{p}", plain)
        pattern = rng.choice([framed, plain.replace("a list", "a numbered list")])
        numbered = "number" in pattern
    lines = [f"{i}. {upper_first(item)}" if numbered else f"- {upper_first(item)}" for i, item in enumerate(chosen, 1)]
    slots = {"c": rng.choice([str(count), NUMBERS[count]]), "k": label}
    thought = f"The user wants {NUMBERS[count]} {label}. I write a {'numbered ' if numbered else ''}list."
    return finish(rng, "list", pattern, slots, answer="\n".join(lines), thought=thought)


def code(rng: Random) -> Turn:
    """One of three blocks of Python."""
    parts = load("stories")
    entry = rng.choice(parts["code"])
    pattern = question(rng, parts["code_frames"]).replace("{p}", rng.choice(entry["thing"]))
    last = rng.randint(3, 10)
    slots = {"k": str(last), "k1": str(last + 1) if "{k}" in pattern else "6"}
    thought = f"The user wants code: {entry['name']} in Python."
    return finish(rng, "code", pattern, slots, answer=rng.choice(entry["answer"]), thought=thought)
