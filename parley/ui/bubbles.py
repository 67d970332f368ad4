"""How an answer looks in the chat: the folded thought, the text, and under it one quiet line."""

import re
from collections.abc import Sequence
from typing import Literal

import gradio as gr

from parley.engines.base import Answer, Beam, Usage

ENDINGS = {
    "end": "finished",
    "stop string": "ended at a stop string",
    "length": "reached max new tokens",
    "context": "reached the end of the context window",
    "time": "ran out of time",
    "stopped": "stopped",
}


def bubbles(answer: Answer, error: str = "") -> list[gr.ChatMessage]:
    """The messages that show `answer`. All but the text itself bear a title, by which the history leaves them out."""
    shown = []
    if answer.thought:
        over = bool(answer.text or answer.finish or error)
        shown.append(_titled("Thought" if over else "Thinking…", answer.thought, "done" if over else "pending"))
    if answer.text:
        shown.append(_said("assistant", answer.text))
    if answer.beams:
        shown.append(_titled(f"{len(answer.beams)} hypotheses", _beam_table(answer.beams), "done"))
    if error:
        shown.append(_titled("**Could not finish**", error))  # bold marks an error for the style sheet
    elif answer.finish:
        shown.append(_titled(quiet_line(answer), _details(answer), "done"))
    elif not answer.text and not answer.thought:
        shown.append(_titled(answer.status or "Reading…", "", "pending"))
    return shown


def question(text: str) -> gr.ChatMessage:
    """The message that shows what the visitor asked."""
    return _said("user", text)


def _said(role: Literal["user", "assistant"], text: str) -> gr.ChatMessage:
    # A list of parts, for Gradio takes the indentation out of a plain string.
    return gr.ChatMessage([{"type": "text", "text": text}], role=role)


def _titled(title: str, text: str, status: str | None = None) -> gr.ChatMessage:
    message = _said("assistant", text)
    message.metadata = {"title": title, "status": status} if status else {"title": title}
    return message


def quiet_line(answer: Answer) -> str:
    """Tokens, tokens per second, time to first token, how it ended."""
    usage, parts = answer.usage, []
    if usage:
        parts.append(f"{usage.new_tokens} token{'' if usage.new_tokens == 1 else 's'}")
        if usage.tokens_per_second:
            parts.append(f"{usage.tokens_per_second:.0f} tokens/s")
        if usage.first_piece is not None:
            parts.append(f"first after {usage.first_piece:.2f} s")
    return " · ".join([*parts, ENDINGS[answer.finish or "stopped"], *answer.notices])


def _beam_table(beams: Sequence[Beam]) -> str:
    rows = [f"| {beam.score:.2f} | {'finished' if beam.finished else 'kept'} | {_cell(beam.text)} |" for beam in beams]
    return "\n".join(["| score | | text |", "|---:|---|---|", *rows])


def _cell(text: str) -> str:
    """Text as it can stand in a cell of a markdown table, none of it markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+.!|~$-])", r"\\\1", " ".join(text.split()))


def _details(answer: Answer) -> str:
    usage = answer.usage or Usage(0, 0, None, 0.0)
    lines = [f"Prompt: {usage.prompt_tokens} tokens. Answer: {usage.new_tokens} tokens in {usage.seconds:.1f} s."]
    if usage.cached_tokens:
        lines.append(f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens from the cache.")
    if answer.seed is not None:
        lines.append(f"Seed: {answer.seed}.")
    if usage.drafted:
        lines.append(f"{usage.accepted} of {usage.drafted} guessed tokens were right.")
    if answer.ran is None:
        return " ".join(lines)
    config = "\n".join(f"{name}={value!r}" for name, value in answer.ran.config.items())
    parts = [" ".join(lines), "What the model read:", _code("text", answer.ran.prompt), "What decided:"]
    return "\n\n".join([*parts, _code("text", config), "The same again:", _code("python", answer.ran.program)])


def _code(language: str, text: str) -> str:
    """A code block that nothing in `text` can close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
