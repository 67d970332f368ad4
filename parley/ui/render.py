"""Renders an answer as chat messages: the folded thought, the text, and below it one line of figures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from parley.events import Answer, Beam, RunRecord, Usage
from parley.models.spec import ModelSpec
from parley.settings import replace_lone_surrogates
from parley.ui.client_snippets import client_program, curl_commands

ENDINGS = {
    "end": "finished",
    "stop string": "ended at a stop string",
    "length": "reached max new tokens",
    "context": "reached the end of the context window",
    "time": "ran out of time",
    "stopped": "stopped",
}
UNFINISHED = ("time", "length", "stopped")  # the visitor can continue these
CONTINUE = "Continue"
THOUGHT, THINKING = "Thought", "Thinking…"
MAX_FOLDED_CHARACTERS = 300_000  # in all folded messages together; the page sends them back with every question
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
        shown.append(_titled(f"{len(answer.beams)} hypotheses", _beam_table(answer.beams), "done"))
    if failure:
        shown.append(_titled("**Could not finish**", failure.sentence))  # bold marks an error for the style sheet
    elif answer.finish:
        shown.append(_titled(stats_line(answer), _details(answer, url), "done"))
    elif not answer.text and not answer.thought:
        shown.append(_titled(answer.status or "Reading…", "", "pending"))
    if failure and failure.instead:
        other = failure.instead
        shown[-1].options = [{"label": f"Go on with {other.label} on the CPU", "value": other.name}]
    elif (failure or answer.finish in UNFINISHED) and (text or thought):
        shown[-1].options = [{"label": CONTINUE, "value": CONTINUE}]
    return shown


def partial_answer(shown: Sequence[Any]) -> tuple[list[Any], Answer]:
    """The messages with the thought and the text of an answer, out of all its messages, and both as an `Answer`."""
    kept, text, thought = [], "", ""
    for message in shown:
        title = (message.get("metadata") or {}).get("title")
        if title in (None, THOUGHT, THINKING):
            kept.append(message)
            content = "".join(part.get("text", "") for part in message["content"])
            text, thought = (text, thought + content) if title else (text + content, thought)
    return kept, Answer(text=text, thought=thought)


def question(text: str) -> gr.ChatMessage:
    """The message that shows the visitor's question."""
    return _message("user", replace_lone_surrogates(text))


def trim_folded(shown: Sequence[Any]) -> list[Any]:
    """The same messages, but with less folded text.

    If the folded messages together are longer than `MAX_FOLDED_CHARACTERS`, the oldest keep only their first lines.
    """
    trimmed, characters_left = [], MAX_FOLDED_CHARACTERS
    for message in reversed(shown):
        folded = bool((message.get("metadata") or {}).get("title"))
        text = "".join(part.get("text", "") for part in message["content"]) if folded else ""
        characters_left -= len(text)
        too_long = folded and characters_left < 0 and LEFT_OUT not in text
        short = f"{text[:1000].partition(SEPARATOR)[0]} {LEFT_OUT}"
        trimmed.append({**message, "content": [{"type": "text", "text": short}]} if too_long else message)
    return trimmed[::-1]


def _message(role: Literal["user", "assistant"], text: str) -> gr.ChatMessage:
    # A list of parts, because Gradio removes the indentation of a plain string.
    parts: list[Any] = [{"type": "text", "text": text}]
    return gr.ChatMessage(parts, role=role)


def _titled(title: str, text: str, status: Literal["pending", "done"] | None = None) -> gr.ChatMessage:
    message = _message("assistant", text)
    message.metadata = {"title": title, "status": status} if status else {"title": title}
    return message


def stats_line(answer: Answer) -> str:
    """One line: tokens, tokens per second, time to first token, cached and draft tokens, engine, finish reason."""
    usage, parts = answer.usage, []
    if usage:
        parts.append(f"{usage.new_tokens} {usage.unit}{'' if usage.new_tokens == 1 else 's'}")
        if usage.tokens_per_second:
            parts.append(f"{usage.tokens_per_second:.0f} {usage.unit}s/s")
        if usage.time_to_first_token is not None:
            parts.append(f"first after {usage.time_to_first_token:.2f} s")
        if usage.others:
            others = f"{usage.others} other{'' if usage.others == 1 else 's'}"
            parts.append(f"beside {others}, {usage.total_tokens_per_second:.0f} {usage.unit}s/s in all")
        if usage.cached_tokens:
            parts.append(f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens cached")
        automatic = "lookup" in (answer.run_record.config if answer.run_record else ())  # not the visitor's strategy
        if usage.accepted or (usage.drafted and not automatic):
            parts.append(f"{usage.accepted} of {usage.drafted} drafts accepted")
    if answer.run_record and (engine := answer.run_record.config.get("engine")):
        parts.append(engine)
    return " · ".join([*parts, ENDINGS[answer.finish or "stopped"], *answer.notices])


def _beam_table(beams: Sequence[Beam]) -> str:
    rows = [f"| {beam.score:.2f} | {'finished' if beam.finished else 'kept'} | {_cell(beam.text)} |" for beam in beams]
    return "\n".join(["| score | | text |", "|---:|---|---|", *rows])


def _cell(text: str) -> str:
    """Text for a cell of a markdown table, with all markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#+.!|~$-])", r"\\\1", " ".join(text.split()))


def _details(answer: Answer, url: str) -> str:
    usage = answer.usage or Usage(0, 0, None, 0.0)
    no_count = "The server did not report a number of tokens."
    lines = [f"Prompt: {usage.prompt_tokens} tokens." if usage.unit == "token" else no_count]
    lines.append(f"Answer: {usage.new_tokens} {usage.unit}s in {usage.seconds:.1f} s.")
    if usage.gpu_seconds:
        lines.append(f"Requested GPU time: {usage.gpu_seconds} s.")
    if answer.seed is not None:
        lines.append(f"Seed: {answer.seed}.")
    parts = [" ".join(lines), *(_run_details(answer.run_record, url) if answer.run_record else [])]
    text = SEPARATOR.join(parts)
    return text if len(text) <= MAX_FOLDED_CHARACTERS else f"{parts[0]} {LEFT_OUT}"


def _run_details(record: RunRecord, url: str) -> list[str]:
    """Headings and code blocks: the prompt or request, the configuration, and three programs for the same answer."""
    config = "\n".join(f"{name}={value!r}" for name, value in record.config.items())
    blocks = [
        ("The prompt that the model read:", "text", record.prompt),
        ("The request to the server:", "json", record.request),
        ("The configuration:", "text", "" if record.request else config),
        (f"The same again, with {record.library}:", "python", record.program),
        ("With gradio_client:", "python", client_program(url, record)),
        ("With curl:", "bash", curl_commands(url, record)),
    ]
    return [part for title, language, text in blocks if text for part in (title, _code(language, text))]


def _code(language: str, text: str) -> str:
    """A code block that nothing in `text` can close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
