"""Turns Gradio's history, or the messages of an API caller, into messages for a chat template."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from parley.errors import BadConversation
from parley.settings import replace_lone_surrogates

MAX_MESSAGE_CHARACTERS = 32_000  # the engine checks the context window in tokens
MAX_ANSWER_CHARACTERS = 320_000  # more, because an answer may have been continued many times
MAX_MESSAGES = 500
_THOUGHT = re.compile(r"\A\s*<think>.*?(</think>\s*|\Z)", re.DOTALL)


class Message(NamedTuple):
    """One message of a conversation, as chat templates take it."""

    role: Literal["system", "user", "assistant"]
    content: str


def build_messages(history: Sequence[Any], message: str | Sequence[Any], system_prompt: str = "") -> list[Message]:
    """The conversation so far with the new message, as messages for a chat template.

    Takes both forms of Gradio's history (content as text or as a list of parts) and the messages of an API caller.
    Thoughts, notices and empty messages are left out. Consecutive messages of one role are merged. System messages are
    appended to the system prompt at the top. `message` may be empty. Then the history has to end with a question, or
    with an answer to be continued, which comes last and keeps its thought.

    Raises `BadConversation`, also for an unknown role.
    """
    if not isinstance(history, list | tuple):
        raise BadConversation('A conversation is a list of messages such as {"role": "user", "content": "Hello"}.')
    if len(history) > MAX_MESSAGES:
        raise BadConversation(
            f"The conversation has {len(history)} messages; at most {MAX_MESSAGES} fit. Clear the chat."
        )
    messages = [m for m in map(_message, history) if m is not None]
    messages.append(Message("user", _text(message)))
    answer = messages[-2] if len(messages) > 1 else messages[-1]
    goes_on = answer.role == "assistant" and not messages[-1].content.strip() and bool(answer.content.strip())
    messages = [m if m is answer and goes_on else _without_thought(m) for m in messages]
    system = "\n\n".join(
        text for text in (system_prompt, *(m.content for m in messages if m.role == "system")) if text.strip()
    )
    turns = _merged(m for m in messages if m.role != "system")
    if not any(m.role == "user" for m in turns) or (turns[-1].role != "user" and not goes_on):
        raise BadConversation("There is no question to answer. Type a message and send it.")
    return [Message("system", system), *turns] if system else turns


def merge_system_into_user(messages: Sequence[Message]) -> list[Message]:
    """The conversation for a template without a system role: the system text starts the first user message."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *turns = messages
    first = next(i for i, m in enumerate(turns) if m.role == "user")
    turns[first] = Message("user", f"{system.content}\n\n{turns[first].content}")
    return turns


def drop_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """The conversation without its oldest turn (a question and its answer). The system message stays.

    None where only the last question is left.
    """
    head = list(messages[:1]) if messages[0].role == "system" else []
    turns = list(messages[len(head) :])
    if len(turns) < 2:
        return None
    next_question = next((i for i, m in enumerate(turns) if i > 0 and m.role == "user"), len(turns))
    return head + turns[next_question:] if next_question < len(turns) else None


def _message(item: Any) -> Message | None:
    """One item of a history as a message; None for thoughts, status lines and notices, which have a title."""
    if not isinstance(item, Mapping):
        raise BadConversation('Each message must be an object such as {"role": "user", "content": "Hello"}.')
    metadata = item.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("title"):
        return None
    role = item.get("role")
    if role not in ("system", "user", "assistant"):
        raise BadConversation(
            f'The role of a message must be "system", "user" or "assistant", not {str(role)[:40]!r}.'
        )
    return Message(
        role, _text(item.get("content"), MAX_ANSWER_CHARACTERS if role == "assistant" else MAX_MESSAGE_CHARACTERS)
    )


def _without_thought(m: Message) -> Message:
    return Message(m.role, _THOUGHT.sub("", m.content)) if m.role == "assistant" else m


def _text(content: Any, max_characters: int = MAX_MESSAGE_CHARACTERS) -> str:
    if isinstance(content, list):
        content = "".join(map(_part, content))
    if not isinstance(content, str):
        raise BadConversation("The content of a message must be text.")
    if len(content) > max_characters:
        raise BadConversation(
            f"A message may have at most {max_characters} characters; this one has {len(content)}. Shorten it."
        )
    return replace_lone_surrogates(content)


def _part(part: Any) -> str:
    """The text of one part of a message."""
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    text = part.get("text") if kind == "text" else None
    if not isinstance(text, str):
        raise BadConversation(
            f"A message has a part of the type {str(kind)[:40]!r}. Only text can be read: leave it out."
        )
    return text


def _merged(messages: Iterable[Message]) -> list[Message]:
    """Merges consecutive messages of one role, and drops empty ones.

    An answer after an empty question continues the answer before that question, so the two are joined without a gap.
    """
    merged: list[Message] = []
    separator = "\n\n"
    for m in messages:
        last = merged[-1].role if merged else ""
        if not m.content.strip():
            separator = "" if (last, m.role) == ("assistant", "user") else separator
            continue
        if last == m.role:
            merged[-1] = Message(m.role, f"{merged[-1].content}{separator}{m.content}")
        else:
            merged.append(m)
        separator = "\n\n"
    return merged
