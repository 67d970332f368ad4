"""Turns Gradio's history, or the messages of an API caller, into messages for a chat template."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from parley.config import MAX_MESSAGES
from parley.errors import BadConversation, TooLong
from parley.settings import replace_lone_surrogates

MAX_MESSAGE_CHARACTERS = 32_000  # the engine checks the context window in tokens
MAX_ANSWER_CHARACTERS = 320_000  # more, because an answer may have been continued many times
OTHER_NAMES = {"developer": "system", "function": "tool"}  # of roles, in the OpenAI API
_ROLES = 'The role of a message must be "system", "user" or "assistant"'
_THOUGHT = re.compile(r"\A\s*<think>.*?(</think>\s*|\Z)", re.DOTALL)


Role = Literal["system", "user", "assistant", "tool"]


class ToolCall(NamedTuple):
    """A call of a tool that a model asks for."""

    name: str
    arguments: str  # an object as JSON, as the model wrote it
    id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The call as chat templates take it: in the form of the OpenAI API, but the arguments are an object."""
        function = {"name": self.name, "arguments": _object(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


class Message(NamedTuple):
    """One message of a conversation, as chat templates take it."""

    role: Role
    content: str

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tools that the assistant calls."""
        return ()

    def as_dict(self) -> dict[str, Any]:
        """The message in the form of the OpenAI API."""
        return self._asdict()


class ToolMessage(Message):
    """A message of the assistant that calls tools, or the answer of a tool. Equal messages may differ in the calls."""

    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""  # of the call that a tool answers
    name: str = ""  # of that tool

    @classmethod
    def of(
        cls, role: Role, content: str, calls: Sequence[ToolCall] = (), call_id: str = "", name: str = ""
    ) -> "ToolMessage":
        """A message with more than a text."""
        made = cls(role, content)
        made.calls, made.call_id, made.name = tuple(calls), call_id, name
        return made

    def as_dict(self) -> dict[str, Any]:
        """The message in the form of the OpenAI API, without what is empty."""
        more = {"tool_call_id": self.call_id, "name": self.name, "tool_calls": [each.as_dict() for each in self.calls]}
        return super().as_dict() | {name: value for name, value in more.items() if value}


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
    if len(history) > (most := MAX_MESSAGES.read()):
        raise TooLong(f"The conversation has {len(history)} messages; at most {most} fit. Clear the chat.")
    messages = [m for m in map(_message, history) if m is not None]
    messages.append(Message("user", _text(message)))
    answer = messages[-2] if len(messages) > 1 else messages[-1]
    goes_on = (
        answer.role == "assistant"
        and not answer.calls
        and not messages[-1].content.strip()
        and bool(answer.content.strip())
    )
    messages = [m if m is answer and goes_on else _without_thought(m) for m in messages]
    system = "\n\n".join(
        text for text in (system_prompt, *(m.content for m in messages if m.role == "system")) if text.strip()
    )
    turns = _merged(m for m in messages if m.role != "system")
    _check_tools(turns)
    if not any(m.role == "user" for m in turns) or (turns[-1].role not in ("user", "tool") and not goes_on):
        raise BadConversation("There is no question to answer. Type a message and send it.")
    return [Message("system", system), *turns] if system else turns


def _check_tools(turns: Sequence[Message]) -> None:
    """Raises `BadConversation` for the answer of a tool that nobody called."""
    for before, m in zip([None, *turns], turns, strict=False):
        if m.role == "tool" and not (before and (before.role == "tool" or before.calls)):
            raise BadConversation(f"{_ROLES}, not 'tool', because no tool was called before it.", name="messages")


def build_plain_text(history: Sequence[Any], message: str | Sequence[Any]) -> list[Message]:
    """The text to be continued as a message of its own. The messages before it are not read.

    `message` may be empty. Then the history has to end with the text, or with the text and its continuation so far,
    which comes last. Raises `BadConversation`.
    """
    if not isinstance(history, list | tuple):
        raise BadConversation('A conversation is a list of messages such as {"role": "user", "content": "Hello"}.')
    if text := _text(message):
        return [Message("user", text)]
    messages = [m for m in map(_message, history) if m is not None and m.content]
    last = next((i for i in reversed(range(len(messages))) if messages[i].role == "user"), None)
    if last is None:
        raise BadConversation("There is no text to continue. Type one and send it.")
    so_far = "".join(m.content for m in messages[last + 1 :])
    return [messages[last], *([Message("assistant", so_far)] if so_far else [])]


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
    role: Any = OTHER_NAMES.get(str(item.get("role")), item.get("role"))
    if role not in get_args(Role):
        raise BadConversation(f"{_ROLES}, not {str(role)[:40]!r}.", name="messages", valid=list(get_args(Role)))
    asked = item.get("tool_calls") or []
    calls = tuple(map(_call, asked if isinstance(asked, list) else [asked])) if role == "assistant" else ()
    content = "" if item.get("content") is None and calls else item.get("content")
    text = _text(content, MAX_ANSWER_CHARACTERS if role in ("assistant", "tool") else MAX_MESSAGE_CHARACTERS)
    if role == "tool":
        call_id, name = (str(item.get(each) or "") for each in ("tool_call_id", "name"))
        return ToolMessage.of(role, text, call_id=call_id, name=name)
    return ToolMessage.of(role, text, calls) if calls else Message(role, text)


def _call(item: Any) -> ToolCall:
    function = item.get("function") if isinstance(item, Mapping) else None
    given = function if isinstance(function, Mapping) else {}
    name, arguments = given.get("name"), given.get("arguments", "")
    arguments = json.dumps(arguments) if isinstance(arguments, Mapping) else arguments
    if not isinstance(name, str) or not name or not isinstance(arguments, str):
        raise BadConversation(
            'A call of a tool must be an object such as {"id": "1", "type": "function", "function": {"name": "add", '
            '"arguments": "{}"}}.'
        )
    return ToolCall(name, replace_lone_surrogates(arguments), str(item.get("id") or ""))


def _object(arguments: str) -> Any:
    """The arguments of a call as an object; the text itself where a model wrote no JSON."""
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments


def _without_thought(m: Message) -> Message:
    if m.role != "assistant":
        return m
    text = _THOUGHT.sub("", m.content)
    return ToolMessage.of(m.role, text, m.calls) if m.calls else Message(m.role, text)


def _text(content: Any, max_characters: int = MAX_MESSAGE_CHARACTERS) -> str:
    if isinstance(content, list):
        content = "".join(map(_part, content))
    if not isinstance(content, str):
        raise BadConversation("The content of a message must be text.")
    if len(content) > max_characters:
        raise TooLong(
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
        if m.calls or m.role == "tool" or (merged and merged[-1].calls):
            merged.append(m)
            continue
        if not m.content.strip():
            separator = "" if (last, m.role) == ("assistant", "user") else separator
            continue
        if last == m.role:
            merged[-1] = Message(m.role, f"{merged[-1].content}{separator}{m.content}")
        else:
            merged.append(m)
        separator = "\n\n"
    return merged
