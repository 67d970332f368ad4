"""What the model reads: the newest part of a conversation that leaves room for an answer, in the model's template."""

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
    """A rendered conversation that fits."""

    messages: Sequence[Message]  # those that fit, as the template takes them
    ids: torch.Tensor  # shape (1, tokens)
    in_reasoning: bool  # a thought is open at its end: the template opens it, or the answer ran out in it
    continues: bool = False  # its end is the beginning of the answer
    dropped: int = 0  # whole turns left out at the beginning
    spliced: bool = False  # the template would cut its text into other tokens
    negative: "Prompt | None" = None  # what the answer is steered away from

    @property
    def length(self) -> int:
        """In tokens."""
        return self.ids.shape[1]


def render_prompt(
    loaded: LoadedModel, messages: Sequence[Message], settings: Settings, kept: Sequence[int] = ()
) -> Prompt:
    """As much of the conversation as fits, rendered.

    `kept` are the tokens of an earlier turn: what the conversation has of them is not cut into tokens anew.
    Raises `BadConversation` for a message that does not fit the context window even without those before it.
    """
    if settings.thinking and not loaded.thinking:
        raise BadSetting(f"{loaded.spec.label} has no thinking switch. Turn thinking off.")
    fits = loaded.context - min(settings.max_new_tokens, loaded.context // 4)
    shorter = [list(messages)]
    while (rest := drop_oldest_turn(shorter[-1])) is not None:
        shorter.append(rest)
    index = 0
    if _rendered(loaded, shorter[0], settings).shape[1] > fits:
        # A shorter conversation never has more tokens, so the longest that fits is found by bisection.
        index = bisect.bisect_left(shorter, -fits, lo=1, key=lambda m: -_rendered(loaded, m, settings).shape[1])
    if index == len(shorter):
        needed = _rendered(loaded, shorter[-1], settings).shape[1]
        raise BadConversation(
            f"This message needs {needed} tokens, but {loaded.spec.label} reads at most {fits} "
            "and needs the rest for its answer. Shorten it, or choose a model with a larger context."
        )
    prompt = replace(_prompt(loaded, shorter[index], settings), dropped=index)
    spliced = _as_generated(loaded, shorter[index], settings, kept) if prompt.continues else None
    spliced = spliced or reuse_generated_ids(kept, prompt.ids[0].tolist(), loaded.tokenizer)
    if len(spliced) <= fits:
        prompt = replace(prompt, ids=torch.tensor([spliced]), spliced=spliced != prompt.ids[0].tolist())
    if not settings.steers_away:
        return prompt
    turns = [m for m in shorter[index] if m.role != "system"]
    negative = _prompt(loaded, [Message("system", settings.negative_prompt), *turns], settings)
    if negative.length > fits:
        raise BadConversation(
            f"With the negative prompt the conversation needs {negative.length} tokens, but {loaded.spec.label} reads "
            f"at most {fits}. Shorten the negative prompt, or clear the chat."
        )
    return replace(prompt, negative=negative)


def _prompt(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> Prompt:
    told, ids = _told(loaded, messages), _rendered(loaded, messages, settings)
    if messages[-1].role == "assistant":
        text, thought = ReasoningParser().feed(messages[-1].content, last=True)
        return Prompt(told, ids, in_reasoning=bool(thought and not text), continues=True)
    return Prompt(told, ids, in_reasoning=_opens_thought(loaded, ids))


def _opens_thought(loaded: LoadedModel, ids: torch.Tensor) -> bool:
    return loaded.tokenizer.decode(ids[0, -8:]).rstrip().endswith(THINK_OPEN)


def _told(loaded: LoadedModel, messages: Sequence[Message]) -> Sequence[Message]:
    return messages if loaded.system_role else merge_system_into_user(messages)


def _rendered(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> torch.Tensor:
    """Token ids of shape (1, tokens); what people typed can not become a control token."""
    told = [m._asdict() for m in _told(loaded, messages)]
    if messages[-1].role == "user":
        return _encoded(loaded, told, settings, add_generation_prompt=True)
    text, thought = ReasoningParser().feed(messages[-1].content, last=True)
    if not thought:
        with suppress(ValueError):  # the template changes what was said
            ids = _encoded(loaded, told, settings, continue_final_message=True)
            return torch.cat([ids, _trimmed(loaded, ids, text)], dim=1)
    # Templates drop thoughts, or close them: the answer is written after the prompt that it answers.
    prompt = _rendered(loaded, messages[:-1], settings)
    marked = rejoined("{{ messages[0].content }}" if text else "", "{{ messages[0].thought }}" if thought else "")
    if _opens_thought(loaded, prompt):
        marked = marked.removeprefix(THINK_OPEN).removeprefix("\n")
    answer = {"role": "assistant", "content": text, "thought": thought}
    return torch.cat([prompt, _encoded(loaded, [answer], settings, chat_template=marked)], dim=1)


def _as_generated(
    loaded: LoadedModel, messages: Sequence[Message], settings: Settings, kept: Sequence[int]
) -> list[int] | None:
    """The conversation in the tokens of its last turn; None where that did not end with this very answer, or between
    its thought and its text.
    """
    prompt = _rendered(loaded, messages[:-1], settings)
    asked = reuse_generated_ids(kept, prompt[0].tolist(), loaded.tokenizer)
    if list(kept[: len(asked)]) != asked:
        return None
    read = ReasoningParser(in_thought=_opens_thought(loaded, prompt))
    raw = loaded.tokenizer.decode(kept[len(asked) :])
    text, thought = read.feed(raw, last=True)
    same = (text, thought) == ReasoningParser().feed(messages[-1].content, last=True)
    return list(kept) if same and (text or THINK_CLOSE not in raw) else None


def _trimmed(loaded: LoadedModel, ids: torch.Tensor, text: str) -> torch.Tensor:
    """The blank space at the end of `text`, as tokens of shape (1, tokens), where the template has left it out."""
    blank = text[len(text.rstrip()) :]
    left_out = blank if not loaded.tokenizer.decode(ids[0, -16:]).endswith(blank) else ""
    encoded = loaded.tokenizer.encode(left_out, add_special_tokens=False)
    return torch.tensor([encoded], dtype=torch.long)


def _encoded(loaded: LoadedModel, messages: Sequence[dict], settings: Settings, **how: Any) -> torch.Tensor:
    switch = {"enable_thinking": settings.thinking} if loaded.thinking else {}
    try:
        encoded = loaded.tokenizer.apply_chat_template(
            messages, return_dict=True, return_tensors="pt", sanitize_control_tokens=True, **switch, **how
        )
    except TemplateError as error:
        raise BadConversation(
            f"The chat template of {loaded.spec.label} refuses this conversation: {error}. Clear the chat."
        ) from error
    return encoded["input_ids"]
