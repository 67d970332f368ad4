"""How fast answers are: decoding, reading a prompt, every strategy, what is drafted, and the next turn."""

import difflib
import functools
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from benchmarks import measures
from benchmarks.measures import (
    Row,
    ask,
    beside,
    cost,
    decode_speed,
    endless,
    first_token,
    in_turn,
    question,
    row,
    stock,
    without_drafts,
)
from benchmarks.models import Model, Models
from parley.events import Answer, Usage
from parley.messages import Message

NEW = 48  # tokens of an answer, where nothing else is said
LONG = 1024  # tokens of a prompt, likewise
TALK = (
    "Explain how a rainbow comes about.",
    "Write a short story about a sailor and a lighthouse.",
    "What are the advantages of public transport?",
    "Explain binary search with an example in Python.",
    "List ten facts about elephants.",
    "What is the difference between a virus and a bacterium?",
)
TALK_NEW = 150
# What is copied, and how much of it an answer has to have to count as a copy.
PASSAGE = (
    "The harbour of Ostrava Bay was built in 1874 by a company of forty masons and nine divers. Its outer wall is 612 "
    "metres long and rests on granite blocks that came by barge from the quarries of Hallin. In the winter of 1891 a "
    "storm broke the northern end, and the keeper, Johanna Brandt, rang the bell for eleven hours until every boat "
    "had found the inner basin. The town gave her a silver clock, which still hangs in the office of the pilots. "
    "Since 1923 a red lamp marks the place where the wall was mended. On the first Sunday of May the children of the "
    "school paint the railings green, and the baker sends three hundred rolls with caraway seeds."
)
COPIED_AT_LEAST = 0.9
COPY_NEW = 220
PAUSE = 4.0  # seconds, in which an answer of `ANSWER` tokens is read again
ANSWER = 100
STORIES = "Write a long story about a sailor, a lighthouse and a storm. Leave nothing out."

# Beside greedy search, all without drafts; those of the second table beside plain `generate` too.
SETTINGS: dict[str, dict[str, Any]] = {
    "sampling": {"strategy": "sampling", "temperature": 0.7, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.1},
    "beams": {"strategy": "beams", "num_beams": 4},
    "diverse_beams": {"strategy": "diverse_beams", "beam_groups": 2, "beams_per_group": 2},
    "constrained_beams": {"strategy": "constrained_beams", "force_words": "lantern", "num_beams": 4},
    "contrastive": {"strategy": "contrastive", "candidates": 4},
    "dola": {"strategy": "dola"},
    "green_list": {"strategy": "green_list"},
    "synthid": {"strategy": "synthid"},
}
ABOVE_PLAIN = ("contrastive", "dola", "green_list", "synthid")
DRAFT_NEW = 24  # tokens: the stock ones take long
DRAFTING = ("prompt_lookup", "early_exit", "universal_assisted", "assisted")  # as they are set by default


def decode(models: Models, rounds: int, shapes: bool, plain: bool = True) -> Iterator[Row]:
    """Greedy search after a short prompt, nothing drafted."""
    for model in models.large(shapes):
        yield from _beside_others(model, rounds, "decode", question(STORIES), NEW, plain=plain)


def prefill(models: Models, rounds: int, shapes: bool, plain: bool = True) -> Iterator[Row]:
    """The first token after a long prompt."""
    for model in models.large(shapes):
        messages = [*measures.history(model.engine.loaded, LONG), *question()]
        yield from _beside_others(model, rounds, "prefill", messages, 2, plain=plain)


def _beside_others(
    model: Model, rounds: int, name: str, messages: Sequence[Message], new: int, *, plain: bool
) -> Iterator[Row]:
    """Beside plain `generate`, where that is wanted, and llama.cpp; all read the same tokens."""
    ids = measures.prompt(model.engine.loaded, messages, new).ids[0].tolist()
    ways: dict[str, Callable[[], Usage]] = {"ours": lambda: cost(ask(model.engine, messages, new))}
    if plain:
        ways["plain"] = lambda: stock(model.plain, messages, new)
    for kind, peer in model.llama_cpp.items():
        ways[f"llamacpp_{kind}"] = functools.partial(peer.answer, ids, new)

    def figure(way: str) -> float:
        usage = ways[way]()
        return first_token(usage) if name == "prefill" else decode_speed(usage)

    timed = {way: functools.partial(figure, way) for way in ways}
    with endless(model.engine.loaded, *([model.plain] if plain else [])), without_drafts():
        taken = in_turn(rounds, timed)
    unit = "s" if name == "prefill" else "tokens/s"
    for way in list(ways)[1:]:
        yield row(f"{name}_vs_{way}", model.name, unit, beside(taken, "ours", way))


def strategies(models: Models, rounds: int, names: Collection[str] = SETTINGS) -> Iterator[Row]:
    """Those of `SETTINGS` in `names`, each with a long answer, without drafts."""
    model = models.smollm2

    def speed(given: dict[str, Any]) -> float:
        return decode_speed(cost(ask(model.engine, question(STORIES), NEW, seed=1, **given)))

    timed: dict[str, Callable[[], float]] = {"greedy": functools.partial(speed, {})}
    timed |= {name: functools.partial(speed, SETTINGS[name]) for name in SETTINGS if name in names}
    if not set(names).isdisjoint(ABOVE_PLAIN):
        timed["plain"] = lambda: decode_speed(stock(model.plain, question(STORIES), NEW))
    with endless(model.engine.loaded, model.plain), without_drafts():
        taken = in_turn(rounds, timed)
    for name in [name for name in SETTINGS if name in names]:
        yield row(f"{name}_vs_greedy", model.name, "tokens/s", beside(taken, name, "greedy"))
        if name in ABOVE_PLAIN:
            yield row(f"{name}_vs_plain", model.name, "tokens/s", beside(taken, name, "plain"))


def copying(models: Models, rounds: int) -> Iterator[Row]:
    """Saying again what the prompt says, with drafts and without; `RuntimeError` where it is not said again."""
    model = models.smollm2
    asked = question(f"Repeat the following text word for word, and write nothing else.\n\n{PASSAGE}")
    share = copied(ask(model.engine, asked, COPY_NEW).text)
    if share < COPIED_AT_LEAST:
        raise RuntimeError(f"The answer has only {share:.0%} of the words that were to be copied: ask otherwise.")
    yield from _drafting(model, rounds, "copying", [asked], COPY_NEW)


def copied(text: str) -> float:
    """The share of the words of `PASSAGE` that `text` has in their order."""
    wanted, said = (re.findall(r"\w+", each) for each in (PASSAGE, text))
    blocks = difflib.SequenceMatcher(None, wanted, said, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(wanted)


def talking(models: Models, rounds: int) -> Iterator[Row]:
    """Answers of greedy search, where there is little to draft."""
    yield from _drafting(models.smollm2, rounds, "talking", [question(each) for each in TALK], TALK_NEW)


def talking_sampling(models: Models, rounds: int) -> Iterator[Row]:
    """The same by sampling."""
    values: dict[str, Any] = {"strategy": "sampling", "temperature": 0.7, "top_k": 50, "top_p": 0.95, "seed": 1}
    asked = [question(each) for each in TALK]
    yield from _drafting(models.smollm2, rounds, "talking_sampling", asked, TALK_NEW, **values)


def _drafting(
    model: Model, rounds: int, name: str, asked: Sequence[Sequence[Message]], new: int, **values: Any
) -> Iterator[Row]:
    """Decoding with drafts beside none; raises `RuntimeError` where the text depends on them."""
    said: dict[str, list[str]] = {}

    def speed(which: str) -> float:
        answers = [ask(model.engine, each, new, **values) for each in asked]
        said[which] = [answer.text for answer in answers]
        return decoding_speed(answers)

    def without() -> float:
        with without_drafts():
            return speed("without")

    taken = in_turn(rounds, {"with": lambda: speed("with"), "without": without})
    if said["with"] != said["without"]:
        raise RuntimeError(f"{name}: what was drafted changed the text")
    yield row(name, model.name, "tokens/s", beside(taken, "with", "without"))


def decoding_speed(answers: Sequence[Answer]) -> float:
    """Tokens a second after the first token, over all these answers."""
    usages = [cost(answer) for answer in answers]
    return sum(u.new_tokens - 1 for u in usages) / sum(u.seconds - first_token(u) for u in usages)


def drafts(models: Models, rounds: int, names: Collection[str] = DRAFTING) -> Iterator[Row]:
    """Strategies that draft, beside the same strategy of transformers and beside our greedy search without drafts."""
    for name in [name for name in DRAFTING if name in names]:
        model = models.budgie if name == "assisted" else models.smollm2
        ours, theirs = _draft_models(models, name)
        asked = question(TALK[1])

        def greedy(model: Model = model, asked: Sequence[Message] = asked) -> float:
            with without_drafts():
                return decode_speed(cost(ask(model.engine, asked, DRAFT_NEW)))

        timed: dict[str, Callable[[], float]] = {
            "ours": functools.partial(_speed, ask, model.engine, asked, ours, name),
            "stock": functools.partial(_speed, stock, model.plain, asked, theirs, name),
            "greedy": greedy,
        }
        with endless(model.engine.loaded, model.plain):
            taken = in_turn(rounds, timed)
        yield row(f"{name}_vs_stock", model.name, "tokens/s", beside(taken, "ours", "stock"))
        yield row(f"{name}_vs_greedy", model.name, "tokens/s", beside(taken, "ours", "greedy"))


def _speed(answer: Callable, by: object, asked: Sequence[Message], draft: object, strategy: str) -> float:
    made = answer(by, asked, DRAFT_NEW, draft=draft, strategy=strategy)
    return decode_speed(cost(made) if isinstance(made, Answer) else made)


def _draft_models(models: Models, strategy: str) -> tuple:
    """As engine and as a model of transformers: Budgie's own, and Budgie for SmolLM2, which has none this small."""
    if strategy == "assisted":
        return models.budgie_draft.engine, models.budgie_draft.plain
    if strategy == "universal_assisted":
        return models.budgie.engine, models.budgie.plain
    return None, None


def next_turn(models: Models, rounds: int, lengths: Sequence[int] = (LONG, 4 * LONG)) -> Iterator[Row]:
    """The first token after a conversation that ends with an answer that was just made: asked at once, and after a
    pause; beside the same, read by nobody before.
    """
    model = models.smollm2
    for tokens in lengths:
        before = [*measures.history(model.engine.loaded, tokens - ANSWER - 40), *question(STORIES)]

        def turn(session: str, pause: float, before: Sequence[Message] = before) -> float:
            answer = ask(model.engine, before, ANSWER, session)
            if (said := cost(answer).new_tokens) != ANSWER:
                raise RuntimeError(f"The answer has {said} tokens, not {ANSWER}: ask otherwise.")
            time.sleep(pause)
            return waiting([*before, Message("assistant", answer.text)], session)

        def waiting(talk: Sequence[Message], session: str) -> float:
            return first_token(cost(ask(model.engine, [*talk, Message("user", "What came then?")], 1, session)))

        said = ask(model.engine, before, ANSWER, "reader").text
        cold = functools.partial(waiting, [*before, Message("assistant", said)], "")
        ways = {"": 0.0, "_after_pause": PAUSE}
        timed: dict[str, Callable[[], float]] = {w: functools.partial(turn, "reader", ways[w]) for w in ways}
        taken = in_turn(rounds, timed | {"cold": cold})
        for way in ways:
            yield row(f"next_turn_{tokens}{way}", model.name, "s", beside(taken, way, "cold"))


def by_turn(model: Model, turns: int) -> list[tuple[int, float, float]]:
    """A growing conversation: tokens of the prompt, and seconds to the first token with the cache and without."""
    talk: list[Message] = []
    points = []
    for number in range(turns):
        talk.append(Message("user", f"Part {number}. {measures.STORY * 20}"))
        cached, whole = (cost(ask(model.engine, talk, 1, session)) for session in ("chart", ""))
        points.append((cached.prompt_tokens, first_token(cached), first_token(whole)))
        talk.append(Message("assistant", f"{number}: {measures.STORY}"))
    return points
