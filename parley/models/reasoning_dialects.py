"""How models mark a thought, and by which name their chat templates switch thinking on and off.

One row is one dialect. Reading, folding, stopping, the thinking budget and continuing all follow the row of the model.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import regex

from parley.settings import OPTIONS

BUDGET = "thinking_budget"  # a template variable that takes a number of tokens
EFFORT = "reasoning_effort"  # a template variable that takes one of a few levels
LEVELS = OPTIONS[EFFORT].choices[1:]  # of that variable, in their order
PATTERN_SECONDS = 0.1  # for a pattern out of a stranger's file


@dataclass(frozen=True)
class Dialect:
    """The marks of one way of writing a thought before an answer.

    The marks are as models write them, with the blank space around them. Blank space does not count in reading.
    """

    name: str
    models: str  # who writes it
    source: str
    opening: str  # before the thought
    closing: str  # after the thought
    answer: str = ""  # before the text of the answer
    restart: str = ""  # between a thought and the answer, where each is a message of its own
    ends: tuple[str, ...] = ()  # the answer is over where one of these follows the text
    other: tuple[str, ...] = ()  # further marks that open a thought
    evidence: tuple[str, ...] = ()  # all of these stand in the template, or in the tokens of the tokenizer

    @property
    def openings(self) -> tuple[str, ...]:
        """All marks after which a thought follows."""
        marks = tuple(mark.strip() for mark in (self.opening, *self.other))
        return marks + tuple(self.restart + mark for mark in marks if self.restart)

    @property
    def answers(self) -> tuple[str, ...]:
        """All marks after which the text of the answer follows."""
        mark = self.answer.strip()
        return tuple(filter(None, (mark, self.restart + mark if mark and self.restart else "")))

    @property
    def closed(self) -> str:
        """What a model writes between a thought and the text of its answer."""
        return self.closing + self.restart + self.answer

    def opens_thought(self, prompt: str) -> bool:
        """Whether a prompt ends with a mark after which a thought follows."""
        return prompt.rstrip().endswith(self.openings)

    @property
    def structure(self) -> tuple[str, ...]:
        """Every mark that can come before the text of the answer."""
        return (*self.openings, self.closing.strip(), *self.answers, *filter(None, (self.restart,)))


def _tags(name: str, models: str, source: str, mark: str, **rest: Any) -> Dialect:
    """A dialect with a pair of tags such as `<think>` and `</think>`."""
    opening, closing = f"{mark[0]}{mark[1:]}", f"{mark[0]}/{mark[1:]}"
    return Dialect(name, models, source, f"{opening}\n", f"\n{closing}\n\n", evidence=(mark[1:],), **rest)


_HUB = "https://huggingface.co/"
THINK = _tags("think", "DeepSeek-R1, Qwen3, SmolLM3, GLM and most others", f"{_HUB}deepseek-ai/DeepSeek-R1", "<think>")

# The first row whose evidence is found is the dialect of a model; so `THINK`, which others contain, comes last.
DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect(
            "harmony",
            "gpt-oss",
            "https://developers.openai.com/cookbook/articles/openai-harmony",
            opening="<|channel|>analysis<|message|>",
            closing="<|end|>",
            answer="<|channel|>final<|message|>",
            restart="<|start|>assistant",
            ends=("<|end|>", "<|return|>"),
            other=("<|channel|>commentary<|message|>",),
            evidence=("<|start|>", "<|message|>"),
        ),
        Dialect(
            "gemma",
            "Gemma 4",
            "https://ai.google.dev/gemma/docs/core/prompt-formatting-gemma4",
            opening="<|channel>thought\n",
            closing="<channel|>",
            evidence=("<|channel>", "<channel|>"),
        ),
        _tags("seed", "Seed-OSS", f"{_HUB}ByteDance-Seed/Seed-OSS-36B-Instruct", "<seed:think>"),
        Dialect(
            "command",
            "Command R7B, Command A",
            "https://docs.cohere.com/docs/command-r7b-hf",
            opening="<|START_THINKING|>",
            closing="<|END_THINKING|>",
            answer="<|START_RESPONSE|>",
            ends=("<|END_RESPONSE|>",),
            evidence=("<|START_THINKING|>", "<|START_RESPONSE|>"),
        ),
        Dialect(
            "command-text",
            "North, Command models with START_TEXT",
            "https://docs.cohere.com/docs/models",
            opening="<|START_THINKING|>",
            closing="<|END_THINKING|>",
            answer="<|START_TEXT|>",
            ends=("<|END_TEXT|>",),
            evidence=("<|START_THINKING|>", "<|START_TEXT|>"),
        ),
        Dialect(
            "apertus",
            "Apertus",
            "https://github.com/swiss-ai/apertus_format",
            opening="<|inner_prefix|>",
            closing="<|inner_suffix|>",
            evidence=("<|inner_prefix|>", "<|inner_suffix|>"),
        ),
        _tags("minimax", "MiniMax-M3", f"{_HUB}MiniMaxAI/MiniMax-M3", "<mm:think>"),
        Dialect(
            "kimi",
            "Kimi-K3",
            "https://docs.vllm.ai/en/stable/api/vllm/reasoning/kimi_k3_reasoning_parser/",
            opening="<|open|>think<|sep|>",
            closing="<|close|>think<|sep|>",
            answer="<|open|>response<|sep|>",
            ends=("<|close|>response<|sep|>",),
            evidence=("<|open|>", "<|close|>", "<|sep|>"),
        ),
        Dialect(
            "solar",
            "Solar Open",
            f"{_HUB}upstage/Solar-Open-100B",
            opening="<|think|>",
            closing="<|end|>",
            answer="<|content|>",
            restart="<|begin|>assistant",
            ends=("<|end|>", "<|flush|>"),
            evidence=("<|begin|>", "<|think|>", "<|content|>"),
        ),
        Dialect(
            "apriel",
            "Apriel",
            f"{_HUB}ServiceNow-AI/Apriel-1.5-15b-Thinker",
            opening="Here are my reasoning steps:\n",
            closing="\n[BEGIN FINAL RESPONSE]\n",
            ends=("[END FINAL RESPONSE]",),
            evidence=("[BEGIN FINAL RESPONSE]",),
        ),
        Dialect(
            "granite-3.2",
            "Granite 3.2",
            f"{_HUB}ibm-granite/granite-3.2-8b-instruct",
            opening="Here is my thought process:\n",
            closing="\n\nHere is my response:\n",
            evidence=("Here is my thought process:", "Here is my response:"),
        ),
        Dialect(
            "granite",
            "Granite 3.3",
            f"{_HUB}ibm-granite/granite-3.3-8b-instruct",
            opening="<think>",
            closing="</think>",
            answer="<response>",
            ends=("</response>",),
            evidence=("<think>", "<response>"),
        ),
        _tags("magistral", "Magistral, Ministral Reasoning", f"{_HUB}mistralai/Magistral-Small-2509", "[THINK]"),
        _tags("kimi-dev", "Kimi-Dev, Kimi-VL Thinking", f"{_HUB}moonshotai/Kimi-Dev-72B", "◁think▷"),
        THINK,
    )
}


def find_dialect(text: str) -> Dialect | None:
    """The dialect whose marks stand in `text`: the literal text of a chat template, or the added tokens; else None."""
    return next((row for row in DIALECTS.values() if all(mark in text for mark in row.evidence)), None)


def of_response_template(spec: Any, tokens: Collection[str] = ()) -> Dialect | None:
    """The dialect that a `response_template` of transformers describes.

    https://huggingface.co/docs/transformers/chat_response_parsing. A mark that it gives as a pattern is one of these
    added tokens, or of the known marks, that the pattern matches. None where it describes no thought, or where no
    mark is found.
    """
    fields = spec.get("fields") if isinstance(spec, Mapping) else None
    if not isinstance(fields, Mapping):
        return None
    thought, content = (_first(fields, *names) for names in (("reasoning_content", "thinking"), ("content",)))
    known = {*tokens, *(mark for row in DIALECTS.values() for mark in (*row.structure, *row.ends))}
    opening, closing = (_marks(thought, anchor, known) for anchor in ("open", "close"))
    if not opening or not closing:
        return None
    answer, ends = (_marks(content, anchor, known) for anchor in ("open", "close"))
    return Dialect(
        "response_template", "", "", opening[0], closing[0], (*answer, "")[0], "", tuple(ends), tuple(opening[1:])
    )


def _first(fields: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((fields[name] for name in names if isinstance(fields.get(name), Mapping)), {})


def _marks(field: Mapping[str, Any], anchor: str, known: Iterable[str]) -> list[str]:
    marks, pattern = field.get(anchor), field.get(f"{anchor}_pattern")
    found = marks if isinstance(marks, list) else [marks]
    return [mark for mark in found if isinstance(mark, str) and mark.strip()] or _matched(pattern, known)


def _matched(pattern: Any, known: Iterable[str]) -> list[str]:
    """Those of the known marks that a pattern matches, the shortest first."""
    try:
        compiled = regex.compile(pattern, regex.DOTALL) if isinstance(pattern, str) else None
        found = {mark for mark in known if compiled and compiled.fullmatch(mark, timeout=PATTERN_SECONDS)}
    except (regex.error, TimeoutError):  # transformers could not use this pattern either
        return []
    return sorted(filter(str.strip, found), key=lambda mark: (len(mark), mark))


@dataclass(frozen=True)
class ThinkingSwitch:
    """What makes a chat template let the model think, or not."""

    name: str  # the variable of the template; empty: a command in the system message
    on: Any
    off: Any

    def variables(self, thinking: bool, budget: int = 0) -> dict[str, Any]:
        """The variables for the template. `budget` is in tokens; 0 sets no limit."""
        if not self.name:
            return {}
        value = self.on if thinking else self.off
        return {self.name: budget if self.name == BUDGET and thinking and budget else value}

    def command(self, thinking: bool) -> str:
        """The command for the system message; empty where a variable is the switch."""
        return "" if self.name else str(self.on if thinking else self.off)


# The values of such a variable for on and off. The first that the template names is taken, else the last. A template
# that names no effort without thinking is no switch: with it, the model can only think less.
_LEVELS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "thinking_mode": (
        ("enabled", "on", "think", "thinking", "enabled"),
        ("disabled", "off", "no_think", "chat", "disabled"),
    ),
    EFFORT: (("medium", "high", "medium"), ("none", "minimal")),
}
_COMMANDS = (("/think", "/no_think"), ("/think", "/nothink"))  # in the system message


def find_switch(variables: Collection[str], literals: str) -> ThinkingSwitch | None:
    """The thinking switch of a chat template, by its undeclared variables and its literal text.

    The parts of the literal text have a NUL between them.
    """
    return next(_switches(variables, set(literals.split("\0")), literals), None)


def find_efforts(variables: Collection[str], literals: str) -> tuple[str, ...]:
    """The levels of `reasoning_effort` with which a model thinks; empty where its template does not read it.

    A template that names fewer than two takes those of gpt-oss: https://huggingface.co/openai/gpt-oss-20b.
    """
    if EFFORT not in variables:
        return ()
    constants, without = set(literals.split("\0")), _LEVELS[EFFORT][1]
    named = tuple(level for level in LEVELS if level in constants and level not in without)
    return named if len(named) > 1 or not constants.isdisjoint(without) else ("low", "medium", "high")


def _switches(variables: Collection[str], constants: Set[str], literals: str) -> Iterator[ThinkingSwitch]:
    for name in ("enable_thinking", "thinking"):
        if name in variables:
            yield ThinkingSwitch(name, True, False)
    for name, levels in _LEVELS.items():
        if name in variables and (name != EFFORT or not constants.isdisjoint(levels[1])):
            on, off = (next((word for word in words if word in constants), words[-1]) for words in levels)
            yield ThinkingSwitch(name, on, off)
    if BUDGET in variables:
        yield ThinkingSwitch(BUDGET, -1, 0)
    for on_command, off_command in _COMMANDS:
        if off_command in literals:
            yield ThinkingSwitch("", on_command, off_command)
