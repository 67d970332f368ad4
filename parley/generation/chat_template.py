"""Runs the chat template of a model. What people typed stays text, whatever the template does with it."""

import functools
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from parley.errors import BadConversation
from parley.generation.encoding import control_pattern, encode_as_text, encode_inside
from parley.generation.loaded_model import LoadedModel
from parley.generation.reasoning_parser import split_thought
from parley.messages import Message, merge_system_into_user
from parley.models.reasoning_dialects import Dialect
from parley.settings import Settings

SENTINEL = "719355217"  # digits, because templates change the case of text
_log = logging.getLogger(__name__)
# Characters of a private-use area: around a control token that people typed, and within any text that they typed.
_START, _END, _WITHIN = "\U000f0000", "\U000f0001", "\U000f0002"
_MARKERS = re.compile(f"[{_START}{_END}{_WITHIN}]")


@dataclass(frozen=True)
class RenderedChat:
    """A rendered conversation."""

    ids: list[int]
    text: str
    as_template: bool = True  # whether `apply_chat_template` with `sanitize_control_tokens` gives the same tokens


def for_template(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> list[Message]:
    """The messages as the chat template takes them.

    A command that switches thinking joins the system message. Where the template has no system role, the system
    message joins the first question. Where the user has to begin, an empty question comes before a greeting.
    """
    switch = loaded.reasoning.switch
    if switch and (command := switch.command(settings.thinking)):
        system = [m.content for m in messages[:1] if m.role == "system"]
        messages = [Message("system", "\n".join([*system, command])), *messages[len(system) :]]
    taken = list(messages) if loaded.system_role else merge_system_into_user(messages)
    first = next(i for i, m in enumerate(taken) if m.role != "system")
    if taken[first].role == "assistant" and not _takes(loaded, taken, settings):
        taken.insert(first, Message("user", ""))
    return taken


def render(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> RenderedChat:
    """Renders a conversation up to where the model has to go on: after the opening of its answer, or after its text.

    An answer that is continued follows the question as the model would have written it, because templates drop its
    thought, end it, or leave out the system prompt. Raises `BadConversation` where the template cannot render it.
    """
    asked = messages[:-1] if messages[-1].role == "assistant" else messages
    chat = as_dicts(loaded, for_template(loaded, asked, settings))
    options = template_variables(loaded, settings) | {"add_generation_prompt": True}
    if asked is not messages:
        options |= _continuation(loaded, chat, messages[-1], options)
    text = _text(loaded, chat, options)
    pieces = _typed_apart(loaded, chat, options)
    encode = functools.partial(loaded.tokenizer.apply_chat_template, return_dict=True, sanitize_control_tokens=True)
    if not pieces.joined:
        try:
            return RenderedChat(list(encode(chat, **options)["input_ids"]), text, as_template=asked is messages)
        except ValueError:  # ordinary text gives a control token with this tokenizer
            _log.debug("%s cannot sanitize a prompt", loaded.spec.name, exc_info=True)
    return RenderedChat(pieces.encoded(loaded.tokenizer), text, as_template=False)


def as_dicts(loaded: LoadedModel, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages as dictionaries, with the content as text or, where the template wants that, as a list of parts."""
    return [
        m.as_dict() | ({"content": [{"type": "text", "text": m.content}]} if loaded.content_parts else {})
        for m in messages
    ]


def template_variables(loaded: LoadedModel, settings: Settings) -> dict[str, Any]:
    """The variables that say whether and how much the model thinks, and the tools that it may call."""
    return loaded.reasoning.variables(settings) | ({"tools": list(settings.tools)} if settings.tools else {})


def _takes(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> bool:
    try:
        _plain_text(loaded.tokenizer, as_dicts(loaded, messages), template_variables(loaded, settings))
    except Exception:  # a stranger's template can raise anything; the caller tries another form
        return False
    return True


def _plain_text(tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict], options: Mapping[str, Any]) -> str:
    rendered = tokenizer.apply_chat_template(list(chat), tokenize=False, **options)
    assert isinstance(rendered, str)
    return rendered


def _text(loaded: LoadedModel, chat: Sequence[dict], options: Mapping[str, Any]) -> str:
    """The text of a rendered conversation. Raises `BadConversation`."""
    try:
        return _plain_text(loaded.tokenizer, chat, options)
    except Exception as error:  # a stranger's template can raise anything
        refuses = isinstance(error, TemplateError)
        reason = str(error) if refuses else f"{type(error).__name__}: {error}"
        raise BadConversation(
            f"The chat template of {loaded.spec.label} {'refuses' if refuses else 'fails with'} this conversation: "
            f"{reason.strip().rstrip('.')[:300]}. Clear the chat{'' if refuses else ', or choose another model'}."
        ) from error


# An answer that is continued


def _continuation(
    loaded: LoadedModel, chat: Sequence[dict], answer: Message, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that append the answer so far to the rendered question, with the marks as the model writes them."""
    text, thought = split_thought(answer.content)
    before, dialect = _text(loaded, chat, options), loaded.dialect
    written: list[str] = []
    if thought or dialect.opens_thought(before):
        opening, closed = _written_thought(loaded, chat, options)
        written = ["" if dialect.opens_thought(before) else opening, "{{ answer_thought }}", closed if text else ""]
    elif text:
        written = [_answer_lead(loaded, chat, before, options)]
    template = loaded.tokenizer.chat_template.removesuffix("\n")  # jinja drops it at the end of a template
    marks = [f"{{{{ {json.dumps(each)} }}}}" if each[:2] != "{{" else each for each in (*written, "{{ answer_text }}")]
    return {"chat_template": template + "".join(marks), "answer_text": text, "answer_thought": thought}


def _answer_lead(loaded: LoadedModel, chat: Sequence[dict], before: str, options: Mapping[str, Any]) -> str:
    """What the template writes between the opening of an answer and its text, as a model would."""
    shown = _shown(loaded, chat, {"content": SENTINEL}, options)
    dialect, lead = loaded.dialect, shown[len(before) :].partition(SENTINEL)[0]
    if not shown.startswith(before) or any(mark in lead for mark in (*dialect.openings, dialect.closing.strip())):
        lead = ""
    marked = loaded.reasoning.in_template and not lead
    return dialect.answer if marked else lead


def _written_thought(loaded: LoadedModel, chat: Sequence[dict], options: Mapping[str, Any]) -> tuple[str, str]:
    """The marks before and after a thought with the blank space that the template writes around them."""
    dialect, thought = loaded.dialect, SENTINEL[::-1]
    shown = _shown(loaded, chat, {"content": SENTINEL, "reasoning_content": thought}, options)
    before, found, after = shown.rpartition(thought)
    between = after.partition(SENTINEL)[0] if SENTINEL in after else ""
    start = before.rfind(dialect.opening.strip())
    if not found or start < 0 or before[start:].strip() != dialect.opening.strip():
        return dialect.opening, dialect.closed
    whole = dialect.closing.strip() in between and all(mark in between for mark in dialect.answers[:1])
    return before[start:], between if whole else dialect.closed


def _shown(loaded: LoadedModel, chat: Sequence[dict], answer: dict[str, str], options: Mapping[str, Any]) -> str:
    """The conversation with this answer, as the template shows it; empty where it cannot."""
    given = answer | as_dicts(loaded, [Message("assistant", answer["content"])])[0]
    try:
        return _plain_text(loaded.tokenizer, [*chat, given], {**options, "add_generation_prompt": False})
    except Exception:  # a stranger's template can raise anything; the usual form is taken then
        return ""


# Control tokens


def guarded_tokens(tokenizer: PreTrainedTokenizerBase, literals: str, dialect: Dialect | None) -> list[str]:
    """The tokens that text may not become: special ones, those that the template writes, and the marks of a thought.

    Other added tokens, such as `<table>`, are ordinary words that the model was taught.
    """
    marks = "\0".join(dialect.structure) if dialect else ""
    try:
        example = _plain_text(tokenizer, [{"role": "user", "content": "Hello"}], {"add_generation_prompt": True})
    except Exception:  # a stranger's template can raise anything; loading reports it
        example = ""
    written = f"{literals}\0{marks}\0{example}"
    return [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.content.strip() and (token.special or token.content in written)
    ]


@dataclass(frozen=True)
class _Pieces:
    """A rendered conversation, cut where no token may reach across."""

    pieces: Sequence[str]  # every second one is a control token that was typed; the pieces between may be empty
    joined: bool  # whether a control token that the template did not write lies across pieces

    def encoded(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The tokens of the pieces, each encoded apart."""
        ids: list[int] = []
        for i, piece in enumerate(self.pieces):
            if piece:
                ids += encode_as_text(tokenizer, piece) if i % 2 else encode_inside(tokenizer, piece, first=not ids)
        return ids


def _typed_apart(loaded: LoadedModel, chat: Sequence[dict], options: Mapping[str, Any]) -> _Pieces:
    """Renders the conversation with marks in the typed texts, and cuts it at the marks.

    A template that deletes something from a text joins what was around it. A control token with a mark inside was not
    written by the template.
    """
    whole, typed = _patterns(tuple(loaded.tokenizer.chat_control_tokens))
    written = ("content", "tool_calls")
    marked = [m | {name: _marked(m[name], typed) for name in written if name in m} for m in chat]
    names = ("answer_text", "answer_thought", "tools")
    texts = {name: _marked(options[name], typed) for name in names if name in options}
    rendered = _text(loaded, marked, {**options, **texts})
    pieces = re.split(f"{_START}({whole}){_END}|[{_START}{_END}{_WITHIN}]", rendered)
    pieces = [piece or "" for piece in pieces]
    joined = _MARKERS.sub("", re.sub(f"{_START}(?:{whole}){_END}", "\0", rendered))
    return _Pieces(pieces, len(re.findall(whole, joined)) != sum(len(re.findall(whole, p)) for p in pieces[::2]))


@functools.lru_cache(maxsize=16)
def _patterns(controls: tuple[str, ...]) -> tuple[str, re.Pattern[str]]:
    """A pattern for any control token, and one for such a token (`whole`) or a beginning of one, in any case."""
    beginnings = {token[:end] for token in controls for end in range(1, len(token))}
    whole, part = control_pattern(controls), control_pattern(beginnings)
    return whole, re.compile(f"(?P<whole>{whole})|(?i:{part})")


def _marked_part(part: Any, typed: re.Pattern[str]) -> Any:
    if isinstance(part, Mapping):
        return {
            name: _marked(value, typed) if name == "text" and isinstance(value, str) else _marked_part(value, typed)
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [_marked_part(each, typed) for each in part]
    return part if not isinstance(part, str) or part.isidentifier() else _marked(part, typed)


def _marked(content: Any, typed: re.Pattern[str]) -> Any:
    """The texts in this content with marks around control tokens, after beginnings of such, and near both ends.

    In lists and objects short words stay as they are, because templates compare them: types, names and roles.
    """
    if isinstance(content, list):
        return [_marked_part(each, typed) for each in content]
    text = typed.sub(
        lambda found: f"{_START}{found[0]}{_END}" if found["whole"] else found[0] + _WITHIN, _MARKERS.sub("", content)
    )
    # The marks are within the text, so that a template still trims it, but never within another pair of marks.
    first, last = int(not text.startswith(_START)), len(text) - int(not text.endswith(_END))
    return (
        f"{text[:first]}{_WITHIN}{text[first:last]}{_WITHIN}{text[last:]}"
        if first < last
        else f"{_WITHIN}{text}{_WITHIN}"
    )
