"""Asks a chat template, by rendering small conversations, what it takes and how it ends the turn of the assistant.

A stranger's template can raise anything. What it cannot render, it does not take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from parley.generation.chat_template import SENTINEL
from parley.models.reasoning_dialects import Dialect, of_response_template
from parley.models.traits import ThinkingTraits, thinking_traits


@dataclass(frozen=True)
class TemplateForm:
    """What a chat template takes, and how it ends an answer."""

    system_role: bool  # it accepts a system message and shows it
    content_parts: bool  # it shows the content of a message only where it is a list of parts
    ends: list[int]  # the special tokens after an answer
    reasoning: ThinkingTraits


USER: dict[str, Any] = {"role": "user", "content": "Hello"}


def probe(tokenizer: PreTrainedTokenizerBase) -> TemplateForm:
    """Renders small conversations with the template of this tokenizer."""
    thinking, content_parts = reasoning(tokenizer), takes_parts(tokenizer)
    ends = turn_ends(tokenizer, content_parts, thinking.dialect)
    return TemplateForm(takes_system(tokenizer, content_parts), content_parts, ends, thinking)


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], **options: Any) -> str:
    """The text of a conversation; empty where the template cannot render it."""
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    except Exception:  # a stranger's template can raise anything
        return ""
    return text if isinstance(text, str) else ""


def takes_parts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template shows the content of a message only where it is a list of parts."""
    as_text, as_parts = ({**USER, "content": content} for content in (SENTINEL, parts(SENTINEL)))
    return SENTINEL not in rendered(tokenizer, [as_text]) and SENTINEL in rendered(tokenizer, [as_parts])


def parts(text: str) -> list[dict[str, str]]:
    """A text as a list of parts."""
    return [{"type": "text", "text": text}]


def takes_system(tokenizer: PreTrainedTokenizerBase, content_parts: bool) -> bool:
    """Whether the template accepts a system message and shows it."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": SENTINEL}, USER]
    if content_parts:
        messages = [{**m, "content": parts(m["content"])} for m in messages]
    return SENTINEL in rendered(tokenizer, messages, add_generation_prompt=True)


def turn_ends(tokenizer: PreTrainedTokenizerBase, content_parts: bool, dialect: Dialect | None) -> list[int]:
    """The special tokens that the template writes right after an answer, by their ids.

    A token that also ends a thought is left out. `ReasoningParser` ends the answer there.
    """
    answer: dict[str, Any] = {"role": "assistant", "content": SENTINEL}
    marks = dialect.structure if dialect else ()
    special = {t.content: id for id, t in tokenizer.added_tokens_decoder.items() if t.special}
    special = {token: id for token, id in special.items() if not any(token in mark for mark in marks)}
    ends = []
    for messages in ([USER, answer, USER], [USER, answer]):
        taken = [{**m, "content": parts(m["content"])} if content_parts else m for m in messages]
        after = rendered(tokenizer, taken).rpartition(SENTINEL)[2].lstrip()
        ends += [special[token] for token in special if after.startswith(token)][:1]
    return list(dict.fromkeys(ends))


def reasoning(tokenizer: PreTrainedTokenizerBase) -> ThinkingTraits:
    """How the model thinks: by the response template that it brings, its chat template, and its added tokens."""
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values()]
    traits = thinking_traits(tokenizer.chat_template, tokens)
    described = of_response_template(tokenizer.response_template, tokens)
    return replace(traits, dialect=described, in_template=True) if described else traits
