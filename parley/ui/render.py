"""Renders an answer as chat messages: the folded thought, the text, and below it one line of figures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from parley import strategies
from parley.events import STATUSES, Answer, Beam, RunRecord, Usage
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.ui.client_snippets import client_program, curl_commands

ENDINGS = {
    "end": "finished",
    "stop string": "ended at a stop string",
    "length": "reached max new tokens",
    "context": "reached the end of the context window",
    "time": "ran out of time",
    "stopped": "stopped",
}
TEXTS = {  # of the lines under an answer, and of what unfolds from them
    **{"thought": "Thought", "thinking": "Thinking…", "failed": "Could not finish"},
    **{"continue": "Continue", "go_on": "Go on from here", "instead": "Go on with {model} on the CPU"},
    **{"token": "{count} token", "tokens": "{count} tokens", "chunk": "{count} chunk", "chunks": "{count} chunks"},
    "speed": "{count} tokens/s",
    **{"beam": "{count} beam", "beams": "{count} beams"},
    **{
        "candidate": "{count} candidate",
        "candidates": "{count} candidates",
        "all_finished": "{candidates}, all finished",
    },
    **{"score": "score", "text": "text", "goes_on": "goes on", "finished": "✓ finished"},
    **{"figures": "Figures", "prompt_tab": "Prompt", "request": "Request", "settings": "Settings"},
    "prompt": "Prompt: {tokens}",
    "cached": "Prompt: {tokens}, {count} of them cached",
    "unreported": "The server did not report a number of tokens.",
    "answer": "Answer: {tokens} in {seconds} s",
    "answer_after": "Answer: {tokens} in {seconds} s, the first after {first} s",
    "end": "End: {ending}",
    "drafts": "Drafts: {accepted} of {drafted} accepted",
    **{"seed": "Seed: {seed}", "engine": "Engine: {engine}", "beside": "Beside {answers}: {speed} in all"},
    **{"other answer": "{count} other answer", "other answers": "{count} other answers"},
    "gpu": "Requested GPU time: {seconds} s",
}
UNFINISHED = ("time", "length", "stopped")  # the visitor can continue these
CONTINUE, GO_ON, THOUGHT, THINKING = (TEXTS[name] for name in ("continue", "go_on", "thought", "thinking"))
MAX_FOLDED_CHARACTERS = 300_000  # of the details of an answer
SEPARATOR = "\n\n"
LEFT_OUT = "The rest is left out, because the conversation has grown long."
_NOTHING = Answer()


@dataclass(frozen=True)
class Failure:
    """Why a turn failed."""

    sentence: str  # for the visitor
    instead: ModelSpec | None = None  # a model that can answer now


def render(
    answer: Answer, failure: Failure | None = None, url: str = "", before: Answer = _NOTHING
) -> list[gr.ChatMessage]:
    """The messages that show `answer` as one with `before`, the partial answer that it continues.

    All messages except the text have a title. The history leaves out messages with a title. The last message of an
    unfinished answer offers to continue it, or to go on with another model. `url` is the address of the API.
    """
    shown: list[gr.ChatMessage] = []
    text, thought = before.text + answer.text, before.thought + answer.thought
    if thought:
        over = bool(text or answer.finish or failure)
        shown.append(_titled(THOUGHT if over else THINKING, thought, "done" if over else "pending"))
    if text:
        shown.append(_message("assistant", text))
    if answer.beams:
        over = bool(answer.finish or failure)
        shown.append(_titled(_beam_count(answer.beams), _beam_table(answer.beams), "done" if over else "pending"))
    if failure:
        shown.append(_titled(f"**{TEXTS['failed']}**", failure.sentence))  # bold marks an error for the style sheet
    elif answer.finish:
        shown.append(_titled(stats_line(answer, before), details(answer, url), "done"))
    elif not answer.text and not answer.thought:
        shown.append(_titled(answer.status or STATUSES["reading"], "", "pending"))
    if failure and failure.instead:
        other = failure.instead
        shown[-1].options = [{"label": TEXTS["instead"].format(model=other.label), "value": other.name}]
    elif (failure or answer.finish in UNFINISHED) and (text or thought):
        shown[-1].options = [{"label": CONTINUE, "value": CONTINUE}]
    return shown


def partial_answer(shown: Sequence[Any]) -> Answer:
    """The thought and text of an answer, out of all its messages, with the tokens and seconds of its stats line."""
    text, thought, usage = "", "", None
    for message in shown:
        title = (message.get("metadata") or {}).get("title")
        if title in (None, THOUGHT, THINKING):
            content = "".join(part.get("text", "") for part in message["content"])
            text, thought = (text, thought + content) if title else (text + content, thought)
        else:
            usage = _earlier_usage(title) or usage
    return Answer(text=text, thought=thought, usage=usage)


def _message(role: Literal["user", "assistant"], text: str) -> gr.ChatMessage:
    # A list of parts, because Gradio removes the indentation of a plain string.
    parts: list[Any] = [{"type": "text", "text": text}]
    return gr.ChatMessage(parts, role=role)


def _titled(title: str, text: str, status: Literal["pending", "done"] | None = None) -> gr.ChatMessage:
    message = _message("assistant", text)
    message.metadata = {"title": title, "status": status} if status else {"title": title}
    return message


def stats_line(answer: Answer, before: Answer = _NOTHING) -> str:
    """One line: model, strategy, tokens, seconds, tokens per second, how it ended if it is unfinished, and remarks.

    Tokens and seconds are those of the whole answer, with `before`, the partial answer that it continues.
    """
    usage, parts = answer.usage, []
    if record := answer.run_record:
        parts += [name for name in (_label(record, "model"), _label(record, "strategy")) if name]
    if usage:
        earlier = before.usage or Usage(0, 0, None, 0.0)
        parts.append(_count(usage.new_tokens + earlier.new_tokens, usage.unit))
        parts.append(f"{usage.seconds + earlier.seconds:.1f} s")
        if usage.tokens_per_second:
            parts.append(f"{usage.tokens_per_second:.0f} {usage.unit}s/s")
    ending = [] if answer.finish == "end" else [ENDINGS[answer.finish or "stopped"]]
    return " · ".join([*parts, *ending, *answer.notices])


def _label(record: RunRecord, setting: str) -> str:
    """The display name of the model or strategy that ran; empty where the record does not say it."""
    value = record.values.get(setting, "")
    if setting == "strategy":
        return strategies.find(value).label if value else ""
    row = registry.models().get(value)
    return row.label if row else value.rpartition("/")[2]


def _count(number: int, unit: str) -> str:
    return TEXTS[unit if number == 1 else f"{unit}s"].format(count=f"{number:,}")


def _earlier_usage(title: str) -> Usage | None:
    """The tokens and seconds that a stats line tells, for the answer that is continued."""
    found = re.search(r"([\d,]+) (token|chunk)s? · ([\d.]+) s\b", title)
    if not found:
        return None
    tokens, unit, seconds = found.groups()
    return Usage(0, int(tokens.replace(",", "")), None, float(seconds), unit=unit)


def _beam_count(beams: Sequence[Beam]) -> str:
    """How many beams go on, and how many candidates for the answer there are with those that are finished."""
    running = sum(not beam.finished for beam in beams)
    candidates = _count(len(beams), "candidate")
    return (
        f"{_count(running, 'beam')}, {candidates}" if running else TEXTS["all_finished"].format(candidates=candidates)
    )


def _beam_table(beams: Sequence[Beam]) -> str:
    """The candidates, the best first. What all begin with is in italics, for the style sheet; the rest is bold."""
    words = [beam.text.split() for beam in beams]
    common = next((i for i, each in enumerate(zip(*words, strict=False)) if len(set(each)) > 1), min(map(len, words)))
    rows = [
        f"| {beam.score:.2f} | {TEXTS['finished' if beam.finished else 'goes_on']} | {_marked(of_beam, common)} |"
        for beam, of_beam in zip(beams, words, strict=True)
    ]
    return "\n".join([f"| {TEXTS['score']} | | {TEXTS['text']} |", "|---:|---|---|", *rows])


def _marked(words: Sequence[str], common: int) -> str:
    """The words as a cell, the first ones in italics and the others bold."""
    parts = (("i", words[:common]), ("b", words[common:]))
    return " ".join(f"<{tag}>{_cell(' '.join(part))}</{tag}>" for tag, part in parts if part)


def _cell(text: str) -> str:
    """Text for a cell of a markdown table, with all markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#+.!|~$-])", r"\\\1", " ".join(text.split()))


def details(answer: Answer, url: str) -> str:
    """The figures and, below links that details.js makes tabs of, one block of code for each further tab."""
    figures = "\n".join(f"- {line}" for line in _figures(answer))
    blocks = _run_details(answer.run_record, url) if answer.run_record else []
    tabs = " ".join(
        f"[{name}](#tab-{n})" for n, name in enumerate([TEXTS["figures"], *(name for name, _ in blocks)], start=1)
    )
    text = SEPARATOR.join([tabs, figures, *(block for _, block in blocks)]) if blocks else figures
    return text if len(text) <= MAX_FOLDED_CHARACTERS else f"{figures} {LEFT_OUT}"


def _figures(answer: Answer) -> Iterator[str]:
    usage = answer.usage or Usage(0, 0, None, 0.0)
    if usage.unit == "token":
        text = TEXTS["cached" if usage.cached_tokens else "prompt"]
        yield text.format(tokens=_count(usage.prompt_tokens, "token"), count=f"{usage.cached_tokens:,}")
    else:
        yield TEXTS["unreported"]
    first = usage.time_to_first_token
    yield TEXTS["answer" if first is None else "answer_after"].format(
        tokens=_count(usage.new_tokens, usage.unit), seconds=f"{usage.seconds:.1f}", first=f"{first or 0:.2f}"
    )
    yield TEXTS["end"].format(ending=ENDINGS[answer.finish or "stopped"])
    if usage.drafted:
        yield TEXTS["drafts"].format(accepted=f"{usage.accepted:,}", drafted=f"{usage.drafted:,}")
    if answer.seed is not None:
        yield TEXTS["seed"].format(seed=answer.seed)
    if answer.run_record and (engine := answer.run_record.config.get("engine")):
        yield TEXTS["engine"].format(engine=engine)
    if usage.others:
        speed = f"{usage.total_tokens_per_second:.0f} {usage.unit}s/s"
        yield TEXTS["beside"].format(answers=_count(usage.others, "other answer"), speed=speed)
    if usage.gpu_seconds:
        yield TEXTS["gpu"].format(seconds=usage.gpu_seconds)


def _run_details(record: RunRecord, url: str) -> list[tuple[str, str]]:
    """Names and code blocks: the prompt or request, the configuration, and three programs for the same answer."""
    config = "\n".join(f"{name}={value!r}" for name, value in record.config.items())
    blocks = [
        (TEXTS["prompt_tab"], "text", record.prompt),
        (TEXTS["request"], "json", record.request),
        (TEXTS["settings"], "text", "" if record.request else config),
        (record.library, "python", record.program),
        ("gradio_client", "python", client_program(url, record)),
        ("curl", "bash", curl_commands(url, record)),
    ]
    return [(name, _code(language, text)) for name, language, text in blocks if text]


def _code(language: str, text: str) -> str:
    """A code block that nothing in `text` can close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
