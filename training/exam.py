"""Budgie's exam: questions that its corpus never has, marked by program, with a score per skill.

Part of it is written down in exam.toml, part is drawn by a seed from exam_draws.toml.
`python -m training.exam [folder] [--draw SEED] [--sample SEED] [--failures] [--write-card]`
"""

import argparse
import ast
import re
import threading
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from parley.budgie import WEIGHTS
from parley.engines.base import TurnRequest
from parley.engines.loader import load
from parley.engines.local_engine import LocalEngine
from parley.events import Answer
from parley.generation.prompt import render_prompt
from parley.generation.reasoning_parser import rejoined
from parley.messages import Message
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.serving.model_pool import local_engine
from parley.settings import Settings
from tools.readme_tables import between
from training.corpus import normalise
from training.draws import drawn_rows, drawn_words

LONGEST_ANSWER = 160  # tokens; an answer that is not finished by then is wrong
UNFINISHED = " (not finished)"
GREEDY = Settings.check({"strategy": "greedy", "max_new_tokens": LONGEST_ANSWER})
DRAW = 16  # the seed of the questions that the card speaks of
PIRATE = "arr|ahoy|matey|yo ho|shiver"


@dataclass(frozen=True)
class Question:
    """The user turns of one chat and how its last answer is marked."""

    skill: str
    check: str
    turns: tuple[str, ...]
    expected: str
    system: str | None = None
    think: bool = False


@dataclass(frozen=True)
class Result:
    """What was answered and whether it was right."""

    question: Question
    reply: str
    passed: bool


@cache
def _table() -> dict:
    return tomllib.loads((Path(__file__).parent / "exam.toml").read_text(encoding="utf-8"))


def _questions(skill: str, check: str, rows: Iterable[Sequence[str]], *, think: bool = False) -> Iterable[Question]:
    for *turns, expected in rows:
        system = turns.pop(0).removeprefix("system:") if turns[0].startswith("system:") else None
        yield Question(skill, check, tuple(turns), expected, system, think)


@cache
def written() -> tuple[Question, ...]:
    """The questions of exam.toml, in its order."""
    skills = _table()["skills"].items()
    asked = (_questions(skill, it["check"], it["rows"], think=it.get("think", False)) for skill, it in skills)
    return tuple(question for each in asked for question in each)


@cache
def questions(draw: int = DRAW) -> tuple[Question, ...]:
    """All questions: those written down, then those that the seed `draw` makes."""
    drawn = (_questions(skill, check, rows) for skill, (check, rows) in drawn_rows(draw).items())
    return (*written(), *(question for each in drawn for question in each))


@cache
def held_out_turns() -> frozenset[str]:
    """Every written user turn and system prompt, normalised: none may occur in the corpus."""
    texts = [text for question in written() for text in (*question.turns, question.system) if text]
    return frozenset(map(normalise, texts))


@cache
def held_out_values() -> tuple[str, ...]:
    """Names and words that the exam uses and the corpus never has."""
    return (*(value for values in _table()["held_out"].values() for value in values), *sorted(drawn_words()))


def says(reply: str, expected: str) -> bool:
    """One of the alternatives "a|b" occurs as whole words, in any casing; "a & b" wants both."""
    found = (
        rf"(?<!\w)(?:{'|'.join(map(re.escape, part.split('|')))})(?!\w)" for part in expected.split(" & ") if part
    )
    return all(re.search(pattern, reply, re.IGNORECASE) for pattern in found)


def exactly(reply: str, expected: str) -> bool:
    """The answer is what is expected; a full stop after it does not matter."""
    return reply.strip().rstrip(".!") == expected


def says_symbol(reply: str, expected: str) -> bool:
    """One of the alternatives occurs anywhere."""
    return any(symbol in reply for symbol in expected.split("|"))


def numbers(reply: str, expected: str) -> bool:
    """These numbers in this order, and no others."""
    return re.findall(r"\d+", reply) == expected.split()


def number(reply: str, expected: str) -> bool:
    """The last number is the result."""
    return re.findall(r"\d+", reply)[-1:] == [expected]


def story(reply: str, expected: str) -> bool:
    """At least three sentences and 25 words, and it names what was asked for."""
    return len(re.findall(r"[.!?](?:\s|$)", reply)) >= 3 and len(reply.split()) >= 25 and says(reply, expected)


def poem(reply: str, expected: str) -> bool:
    """At least three lines that are no list and no code."""
    return len([line for line in reply.splitlines() if line.strip()]) >= 3 and not re.search(r"(?m)^(-|\d|`)", reply)


def list_of(reply: str, expected: str) -> bool:
    """Nothing but that many different bullets or numbered lines."""
    lines = [re.fullmatch(r"(?:-|\d+\.) (\S.*)", line) for line in reply.splitlines() if line.strip()]
    found = [line[1] for line in lines if line]
    return len(set(found)) == len(found) == len(lines) == int(expected)


def code(reply: str, expected: str) -> bool:
    """One block of Python that parses and holds what is expected."""
    block = re.search(r"```python\n(.*?)\n```\s*$", reply, re.DOTALL)
    try:
        return block is not None and bool(ast.parse(block[1]).body) and says(block[1], expected)
    except SyntaxError:
        return False


def one_word(reply: str, expected: str) -> bool:
    """A single word, the expected one."""
    return len(reply.split()) == 1 and says(reply, expected)


def capitals(reply: str, expected: str) -> bool:
    """No small letter, and what is expected is said."""
    return reply == reply.upper() != reply.lower() and says(reply, expected)


def pirate(reply: str, expected: str) -> bool:
    """A word that only pirates use, and what is expected is said."""
    return bool(re.search(PIRATE, reply, re.IGNORECASE)) and says(reply, expected)


def thinks(reply: str, expected: str) -> bool:
    """A thought that is not empty, then the answer; both hold the result."""
    parts = re.fullmatch(r"<think>\s*(\S.*?)\s*</think>\s*(\S.*)", reply, re.DOTALL)
    return parts is not None and "<think>" not in parts[2] and says(parts[1], expected) and says(parts[2], expected)


MARKED = (says, says_symbol, exactly, numbers, number, story, poem, list_of, code, one_word, capitals, pirate, thinks)
CHECKS: dict[str, Callable[[str, str], bool]] = {check.__name__: check for check in MARKED}


def passes(question: Question, reply: str) -> bool:
    """Whether `reply` answers `question`; thinking where it was not asked for is wrong."""
    if not question.think and "<think>" in reply:
        return False
    return CHECKS[question.check](reply.strip(), question.expected)


def candidate(folder: Path) -> LocalEngine:
    """The model of that folder, as visitors would meet it on this machine."""
    row = ModelSpec(folder.name, str(folder.resolve()), folder.name)
    return local_engine(load(row, lambda _: None, threading.Event()))


def reply(engine: LocalEngine, messages: Sequence[Message], settings: Settings) -> str:
    """What answers `messages`, a thought between its marks."""
    answer = Answer.of(engine.stream(TurnRequest.of(messages, settings, threading.Event())))
    said = rejoined(answer.text, answer.thought).strip()
    return said if answer.finish == "end" else said + UNFINISHED


def opened(question: Question) -> list[Message]:
    """The chat as it begins: the system prompt, if there is one."""
    return [Message("system", question.system)] if question.system else []


def sit(engine: LocalEngine, asked: Iterable[Question], settings: Settings = GREEDY) -> list[Result]:
    """Every question of `asked` in a chat of its own; earlier turns are answered by the model too."""
    results = []
    for question in asked:
        messages = opened(question)
        for turn in question.turns:
            messages.append(Message("user", turn))
            think = question.think and turn == question.turns[-1]
            said = reply(engine, messages, settings.model_copy(update={"thinking": think}))
            messages.append(Message("assistant", said))
        results.append(Result(question, said, not said.endswith(UNFINISHED) and passes(question, said)))
    return results


@torch.inference_mode()
def agreement(budgie: LocalEngine, draft: LocalEngine, asked: Iterable[Question]) -> float:
    """The share of Budgie's greedy tokens that `draft` would predict, in the answers to the first turns of `asked`."""
    right = total = 0
    for question in asked:
        messages = [*opened(question), Message("user", question.turns[0])]
        prompt = render_prompt(budgie.loaded, messages, GREEDY.model_copy(update={"thinking": question.think}))
        given = prompt.ids.to(budgie.loaded.model.device)
        ids = budgie.loaded.model.generate(given, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        answer = ids[0, prompt.length :]
        predicted = draft.loaded.model(ids).logits[0, prompt.length - 1 : -1].argmax(-1)
        right, total = right + int((predicted == answer).sum()), total + len(answer)
    return right / total


def table(results: list[Result]) -> str:
    """A markdown table: skill, right answers, questions."""
    lines = ["| skill | right | of |", "|---|---:|---:|"]
    for skill in dict.fromkeys(result.question.skill for result in results):
        passed = [result.passed for result in results if result.question.skill == skill]
        lines.append(f"| {skill.replace('_', ' ')} | {sum(passed)} | {len(passed)} |")
    right = sum(result.passed for result in results)
    return "\n".join([*lines, f"| **all** | **{right}** | **{len(results)}** ({right / len(results):.1%}) |"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=WEIGHTS)
    parser.add_argument("--draw", type=int, metavar="SEED", default=DRAW, help="draw other questions")
    parser.add_argument(
        "--sample", type=int, metavar="SEED", help="sample by generation_config.json instead of greedy"
    )
    parser.add_argument("--failures", action="store_true", help="print every wrong answer")
    parser.add_argument(
        "--draft", type=Path, help="also print the share of tokens that this draft would have predicted"
    )
    parser.add_argument("--write-card", action="store_true", help="write the table into the folder's README.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # for a model this small a second thread only waits
    budgie, settings = candidate(arguments.folder), GREEDY
    if arguments.sample is not None:
        given = {"max_new_tokens": LONGEST_ANSWER, "seed": arguments.sample}
        settings = Settings.check(given, registry.traits(budgie.loaded.spec).recommended)
    results = sit(budgie, questions(arguments.draw), settings)
    for result in results:
        if arguments.failures and not result.passed:
            question = result.question
            print(question.skill, question.system or "", question.turns, "->", repr(result.reply))
    print(table(results))
    if arguments.draft:
        share = agreement(budgie, candidate(arguments.draft), questions())
        print(f"The draft agrees with {share:.1%} of the tokens.")
    if arguments.write_card:
        card = arguments.folder / "README.md"
        card.write_text(between(card.read_text("utf-8"), "exam", table(results)), "utf-8")


if __name__ == "__main__":
    main()
