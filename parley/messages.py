"""From what Gradio remembers, or an API caller sends, to the messages that a chat template takes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from parley.errors import BadConversation
from parley.settings import replace_lone_surrogates

MOST_CHARACTERS = 32_000  # of one message; the context window is checked, in tokens, by the engine
MOST_OF_AN_ANSWER = 320_000  # which may have been continued many times
MOST_MESSAGES = 500
_THOUGHT = re.compile(r"\A\s*<think>.*?(</think>\s*|\Z)", re.DOTALL)


class Message(NamedTuple):
    """One turn of a conversation, as chat templates know it."""

    role: Literal["system", "user", "assistant"]
    content: str


def build_messages(history: Sequence[Any], message: str, system_prompt: str = "") -> list[Message]:
    """The conversation so far plus the new message, ready for a chat template.

    Takes both shapes of Gradio's history (content as text or as a list of parts) and the messages of an API caller.
    Unknown roles are refused; thoughts, notices and empty turns are left out; neighbours of one role are merged;
    system messages join the system prompt at the top. `message` may be empty when the history ends with a question,
    or with an answer: then that answer comes last, its thought with it, and is to be continued.

    Raises `BadConversation`.
    """
    if not isinstance(history, list | tuple):
        raise BadConversation('A conversation is a list of messages such as {"role": "user", "content": "Hello"}.')
    if len(history) > MOST_MESSAGES:
        raise BadConversation(
            f"The conversation has {len(history)} messages; at most {MOST_MESSAGES} fit. Clear the chat."
        )
    said = [m for m in map(_message, history) if m is not None]
    said.append(Message("user", _text(message)))
    answer = said[-2] if len(said) > 1 else said[-1]
    goes_on = answer.role == "assistant" and not message.strip() and bool(answer.content.strip())
    said = [m if m is answer and goes_on else _without_thought(m) for m in said]
    system = "\n\n".join(
        text for text in (system_prompt, *(m.content for m in said if m.role == "system")) if text.strip()
    )
    turns = _merged(m for m in said if m.role != "system")
    if not any(m.role == "user" for m in turns) or (turns[-1].role != "user" and not goes_on):
        raise BadConversation("There is no question to answer. Type a message and send it.")
    return [Message("system", system), *turns] if system else turns


def merge_system_into_user(messages: Sequence[Message]) -> list[Message]:
    """The same conversation for a template that refuses a system role: its text opens the first user turn."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *turns = messages
    first = next(i for i, m in enumerate(turns) if m.role == "user")
    turns[first] = Message("user", f"{system.content}\n\n{turns[first].content}")
    return turns


def drop_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """The conversation without its oldest turn (a question and its answer); None when only the last question is left.

    The system message stays.
    """
    head = list(messages[:1]) if messages[0].role == "system" else []
    turns = list(messages[len(head) :])
    if len(turns) < 2:
        return None
    later = next((i for i, m in enumerate(turns) if i > 0 and m.role == "user"), len(turns))
    return head + turns[later:] if later < len(turns) else None


def _message(item: Any) -> Message | None:
    """One item of a history; None for what was never said: thoughts, status lines and notices, which bear a title."""
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
    return Message(role, _text(item.get("content"), MOST_OF_AN_ANSWER if role == "assistant" else MOST_CHARACTERS))


def _without_thought(m: Message) -> Message:
    return Message(m.role, _THOUGHT.sub("", m.content)) if m.role == "assistant" else m


def _text(content: Any, most: int = MOST_CHARACTERS) -> str:
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, Mapping) and part.get("type", "text") == "text"
        ]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        raise BadConversation("The content of a message must be text.")
    if len(content) > most:
        raise BadConversation(
            f"A message may have at most {most} characters; this one has {len(content)}. Shorten it."
        )
    return replace_lone_surrogates(content)


def _merged(messages: Iterable[Message]) -> list[Message]:
    """Without what is empty; what follows an empty question continues the answer before it, and is joined to it."""
    merged: list[Message] = []
    glue = "\n\n"
    for m in messages:
        last = merged[-1].role if merged else ""
        if not m.content.strip():
            glue = "" if (last, m.role) == ("assistant", "user") else glue
            continue
        if last == m.role:
            merged[-1] = Message(m.role, f"{merged[-1].content}{glue}{m.content}")
        else:
            merged.append(m)
        glue = "\n\n"
    return merged
