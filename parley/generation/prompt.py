"""Renders a conversation with the chat template. Drops the oldest turns where the context window is too small."""

import bisect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from jinja2 import TemplateError

from parley.errors import BadConversation, BadSetting
from parley.generation.loaded_model import LoadedModel
from parley.generation.reasoning_parser import THINK_CLOSE, THINK_OPEN, ReasoningParser, rejoined
from parley.generation.token_splice import reuse_generated_ids
from parley.messages import Message, drop_oldest_turn, merge_system_into_user
from parley.settings import Settings


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation that fits the context window."""

    messages: Sequence[Message]  # the messages that fit, as the template takes them
    ids: torch.Tensor  # shape (1, tokens)
    in_reasoning: bool  # it ends within a thought, opened by the template or left open by the answer to continue
    continues: bool = False  # it ends with the first part of the answer
    dropped: int = 0  # the number of turns left out at the start
    spliced: bool = False  # its tokens differ from those of the template, with the same text
    negative: "Prompt | None" = None  # the prompt that guidance steers away from

    @property
    def length(self) -> int:
        """The number of tokens."""
        return self.ids.shape[1]


def render_prompt(
    loaded: LoadedModel, messages: Sequence[Message], settings: Settings, cached: Sequence[int] = ()
) -> Prompt:
    """Renders as many of the newest turns as fit.

    `cached` are the tokens of an earlier turn. Where the conversation has the same text, these tokens are reused.
    Raises `BadConversation` where the last message alone does not fit the context window.
    """
    if settings.thinking and not loaded.thinking:
        raise BadSetting(f"{loaded.spec.label} has no thinking switch. Turn thinking off.")
    max_prompt_tokens = loaded.context - min(settings.max_new_tokens, loaded.context // 4)
    candidates = [list(messages)]
    while (rest := drop_oldest_turn(candidates[-1])) is not None:
        candidates.append(rest)
    index = 0
    if _rendered(loaded, candidates[0], settings).shape[1] > max_prompt_tokens:
        # A shorter conversation never has more tokens, so bisection finds the longest one that fits.
        index = bisect.bisect_left(
            candidates, -max_prompt_tokens, lo=1, key=lambda m: -_rendered(loaded, m, settings).shape[1]
        )
    if index == len(candidates):
        needed = _rendered(loaded, candidates[-1], settings).shape[1]
        raise BadConversation(
            f"This message needs {needed} tokens, but {loaded.spec.label} reads at most {max_prompt_tokens} "
            "and needs the rest for its answer. Shorten it, or choose a model with a larger context."
        )
    prompt = replace(_prompt(loaded, candidates[index], settings), dropped=index)
    spliced = _as_generated(loaded, candidates[index], settings, cached) if prompt.continues else None
    spliced = spliced or reuse_generated_ids(cached, prompt.ids[0].tolist(), loaded.tokenizer)
    if len(spliced) <= max_prompt_tokens:
        prompt = replace(prompt, ids=torch.tensor([spliced]), spliced=spliced != prompt.ids[0].tolist())
    if not settings.steers_away:
        return prompt
    turns = [m for m in candidates[index] if m.role != "system"]
    negative = _prompt(loaded, [Message("system", settings.negative_prompt), *turns], settings)
    if negative.length > max_prompt_tokens:
        raise BadConversation(
            f"With the negative prompt the conversation needs {negative.length} tokens, but {loaded.spec.label} reads "
            f"at most {max_prompt_tokens}. Shorten the negative prompt, or clear the chat."
        )
    return replace(prompt, negative=negative)


def _prompt(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> Prompt:
    templated, ids = _for_template(loaded, messages), _rendered(loaded, messages, settings)
    if messages[-1].role == "assistant":
        text, thought = ReasoningParser().feed(messages[-1].content, last=True)
        return Prompt(templated, ids, in_reasoning=bool(thought and not text), continues=True)
    return Prompt(templated, ids, in_reasoning=_opens_thought(loaded, ids))


def _opens_thought(loaded: LoadedModel, ids: torch.Tensor) -> bool:
    return loaded.tokenizer.decode(ids[0, -8:]).rstrip().endswith(THINK_OPEN)


def _for_template(loaded: LoadedModel, messages: Sequence[Message]) -> Sequence[Message]:
    return messages if loaded.system_role else merge_system_into_user(messages)


def _rendered(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> torch.Tensor:
    """Token ids of shape (1, tokens). Text that a visitor typed cannot become a control token."""
    templated = [m._asdict() for m in _for_template(loaded, messages)]
    if messages[-1].role == "user":
        return _encoded(loaded, templated, settings, add_generation_prompt=True)
    text, thought = ReasoningParser().feed(messages[-1].content, last=True)
    if not thought:
        with suppress(ValueError):  # raised where the template changes the text of the answer
            ids = _encoded(loaded, templated, settings, continue_final_message=True)
            return torch.cat([ids, _trimmed(loaded, ids, text)], dim=1)
    # Templates drop thoughts, or close them. So the answer is appended to the prompt without a template.
    prompt = _rendered(loaded, messages[:-1], settings)
    marked = rejoined("{{ messages[0].content }}" if text else "", "{{ messages[0].thought }}" if thought else "")
    if _opens_thought(loaded, prompt):
        marked = marked.removeprefix(THINK_OPEN).removeprefix("\n")
    answer = {"role": "assistant", "content": text, "thought": thought}
    return torch.cat([prompt, _encoded(loaded, [answer], settings, chat_template=marked)], dim=1)


def _as_generated(
    loaded: LoadedModel, messages: Sequence[Message], settings: Settings, cached: Sequence[int]
) -> list[int] | None:
    """The conversation as the tokens of its last turn.

    None where that turn did not end with exactly this answer, and where it ended between the thought and the text.
    """
    prompt = _rendered(loaded, messages[:-1], settings)
    reused = reuse_generated_ids(cached, prompt[0].tolist(), loaded.tokenizer)
    if list(cached[: len(reused)]) != reused:
        return None
    parser = ReasoningParser(in_thought=_opens_thought(loaded, prompt))
    raw = loaded.tokenizer.decode(cached[len(reused) :])
    text, thought = parser.feed(raw, last=True)
    same = (text, thought) == ReasoningParser().feed(messages[-1].content, last=True)
    return list(cached) if same and (text or THINK_CLOSE not in raw) else None


def _trimmed(loaded: LoadedModel, ids: torch.Tensor, text: str) -> torch.Tensor:
    """The whitespace at the end of `text` that the template removed, as tokens of shape (1, tokens)."""
    blank = text[len(text.rstrip()) :]
    left_out = blank if not loaded.tokenizer.decode(ids[0, -16:]).endswith(blank) else ""
    encoded = loaded.tokenizer.encode(left_out, add_special_tokens=False)
    return torch.tensor([encoded], dtype=torch.long)


def _encoded(loaded: LoadedModel, messages: Sequence[dict], settings: Settings, **options: Any) -> torch.Tensor:
    switch = {"enable_thinking": settings.thinking} if loaded.thinking else {}
    try:
        encoded = loaded.tokenizer.apply_chat_template(
            messages, return_dict=True, return_tensors="pt", sanitize_control_tokens=True, **switch, **options
        )
    except TemplateError as error:
        raise BadConversation(
            f"The chat template of {loaded.spec.label} refuses this conversation: {error}. Clear the chat."
        ) from error
    return encoded["input_ids"]
