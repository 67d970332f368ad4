"""How an answer looks in the chat: the folded thought, the text, and under it one quiet line."""

import gradio as gr

from parley.engines.base import Answer, Usage

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
        over = bool(answer.text or answer.finish)
        title, status = ("Thought", "done") if over else ("Thinking…", "pending")
        shown.append(gr.ChatMessage(answer.thought, metadata={"title": title, "status": status}))
    if answer.text:
        shown.append(gr.ChatMessage(answer.text))
    if error:
        shown.append(gr.ChatMessage(error, metadata={"title": "Could not finish", "id": "error"}))
    elif answer.status and not answer.text:
        shown.append(gr.ChatMessage("", metadata={"title": answer.status, "status": "pending"}))
    elif answer.finish:
        shown.append(gr.ChatMessage(_details(answer), metadata={"title": quiet_line(answer), "status": "done"}))
    return shown or [gr.ChatMessage("")]


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


def _details(answer: Answer) -> str:
    usage = answer.usage or Usage(0, 0, None, 0.0)
    lines = [f"Prompt: {usage.prompt_tokens} tokens. Answer: {usage.new_tokens} tokens in {usage.seconds:.1f} s."]
    if answer.seed is not None:
        lines.append(f"Seed: {answer.seed}.")
    return " ".join(lines)
