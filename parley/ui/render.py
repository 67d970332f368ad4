"""How an answer looks in the chat: the folded thought, the text, and under it one quiet line."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import gradio as gr

from parley.events import Answer, Beam, RunRecord, Usage
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


UNFINISHED = ("time", "length", "stopped")  # may be continued
CONTINUE = "Continue"
THOUGHT, THINKING = "Thought", "Thinking…"
MOST_FOLDED = 300_000  # characters, of all that is folded away: the page sends it back with every question
SEPARATOR = "\n\n"
LEFT_OUT = "The rest is left out, for the talk has grown long."
_NOTHING = Answer()


def render(answer: Answer, error: str = "", url: str = "", before: Answer = _NOTHING) -> list[gr.ChatMessage]:
    """The messages that show `answer`, in one with what it continues. All but the text itself bear a title, by which
    the history leaves them out. What ended too early offers to be continued.

    `url` is where the API is.
    """
    shown = []
    text, thought = before.text + answer.text, before.thought + answer.thought
    if thought:
        over = bool(text or answer.finish or error)
        shown.append(_titled(THOUGHT if over else THINKING, thought, "done" if over else "pending"))
    if text:
        shown.append(_said("assistant", text))
    if answer.beams:
        shown.append(_titled(f"{len(answer.beams)} hypotheses", _beam_table(answer.beams), "done"))
    if error:
        shown.append(_titled("**Could not finish**", error))  # bold marks an error for the style sheet
    elif answer.finish:
        shown.append(_titled(stats_line(answer), _details(answer, url), "done"))
    elif not answer.text and not answer.thought:
        shown.append(_titled(answer.status or "Reading…", "", "pending"))
    if (error or answer.finish in UNFINISHED) and (text or thought):
        shown[-1].options = [{"label": CONTINUE, "value": CONTINUE}]
    return shown


def partial_answer(shown: Sequence[Any]) -> tuple[list[Any], Answer]:
    """Of the messages that show an answer, as Gradio hands them over, those with its thought and its text."""
    kept, text, thought = [], "", ""
    for message in shown:
        title = (message.get("metadata") or {}).get("title")
        if title in (None, THOUGHT, THINKING):
            kept.append(message)
            said = "".join(part.get("text", "") for part in message["content"])
            text, thought = (text, thought + said) if title else (text + said, thought)
    return kept, Answer(text=text, thought=thought)


def question(text: str) -> gr.ChatMessage:
    """The message that shows what the visitor asked."""
    return _said("user", replace_lone_surrogates(text))


def trim_folded(shown: Sequence[Any]) -> list[Any]:
    """The same talk, as Gradio hands it over; of what is folded away the oldest is cut to its first lines where all
    together is too much.
    """
    kept, room = [], MOST_FOLDED
    for message in reversed(shown):
        folded = bool((message.get("metadata") or {}).get("title"))
        text = "".join(part.get("text", "") for part in message["content"]) if folded else ""
        room -= len(text)
        cut = folded and room < 0 and LEFT_OUT not in text
        short = f"{text[:1000].partition(SEPARATOR)[0]} {LEFT_OUT}"
        kept.append({**message, "content": [{"type": "text", "text": short}]} if cut else message)
    return kept[::-1]


def _said(role: Literal["user", "assistant"], text: str) -> gr.ChatMessage:
    # A list of parts, for Gradio takes the indentation out of a plain string.
    parts: list[Any] = [{"type": "text", "text": text}]
    return gr.ChatMessage(parts, role=role)


def _titled(title: str, text: str, status: Literal["pending", "done"] | None = None) -> gr.ChatMessage:
    message = _said("assistant", text)
    message.metadata = {"title": title, "status": status} if status else {"title": title}
    return message


def stats_line(answer: Answer) -> str:
    """Tokens, tokens per second, time to first token, what was known before, which engine answered, how it ended."""
    usage, parts = answer.usage, []
    if usage:
        parts.append(f"{usage.new_tokens} {usage.unit}{'' if usage.new_tokens == 1 else 's'}")
        if usage.tokens_per_second:
            parts.append(f"{usage.tokens_per_second:.0f} {usage.unit}s/s")
        if usage.time_to_first_token is not None:
            parts.append(f"first after {usage.time_to_first_token:.2f} s")
        if usage.cached_tokens:
            parts.append(f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens cached")
        unasked = "lookup" in (answer.run_record.config if answer.run_record else ())
        if usage.accepted or (usage.drafted and not unasked):
            parts.append(f"{usage.accepted} of {usage.drafted} guesses right")
    if answer.run_record and (engine := answer.run_record.config.get("engine")):
        parts.append(engine)
    return " · ".join([*parts, ENDINGS[answer.finish or "stopped"], *answer.notices])


def _beam_table(beams: Sequence[Beam]) -> str:
    rows = [f"| {beam.score:.2f} | {'finished' if beam.finished else 'kept'} | {_cell(beam.text)} |" for beam in beams]
    return "\n".join(["| score | | text |", "|---:|---|---|", *rows])


def _cell(text: str) -> str:
    """Text as it can stand in a cell of a markdown table, none of it markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+.!|~$-])", r"\\\1", " ".join(text.split()))


def _details(answer: Answer, url: str) -> str:
    usage = answer.usage or Usage(0, 0, None, 0.0)
    untold = "The server told no count of tokens."
    lines = [f"Prompt: {usage.prompt_tokens} tokens." if usage.unit == "token" else untold]
    lines.append(f"Answer: {usage.new_tokens} {usage.unit}s in {usage.seconds:.1f} s.")
    if usage.gpu_seconds:
        lines.append(f"GPU time asked for: {usage.gpu_seconds} s.")
    if answer.seed is not None:
        lines.append(f"Seed: {answer.seed}.")
    parts = [" ".join(lines), *(_what_ran(answer.run_record, url) if answer.run_record else [])]
    text = SEPARATOR.join(parts)
    return text if len(text) <= MOST_FOLDED else f"{parts[0]} {LEFT_OUT}"


def _what_ran(record: RunRecord, url: str) -> list[str]:
    """Headings and blocks: what was read, what decided, and three ways to the same text."""
    config = "\n".join(f"{name}={value!r}" for name, value in record.config.items())
    blocks = [
        ("What the model read:", "text", record.prompt),
        ("What the server was asked:", "json", record.request),
        ("What decided:", "text", "" if record.request else config),
        (f"The same again, with {record.library}:", "python", record.program),
        ("With gradio_client:", "python", client_program(url, record)),
        ("With curl:", "bash", curl_commands(url, record)),
    ]
    return [part for title, language, text in blocks if text for part in (title, _code(language, text))]


def _code(language: str, text: str) -> str:
    """A code block that nothing in `text` can close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
