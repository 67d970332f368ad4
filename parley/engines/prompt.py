"""What the model reads: the newest part of a conversation that leaves room for an answer, in the model's template."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jinja2 import TemplateError

from parley.answer_text import OPEN
from parley.engines.loading import Loaded
from parley.errors import BadConversation, BadSetting
from parley.kept_ids import splice
from parley.messages import Message, drop_oldest_turn, fold_system
from parley.settings import Settings


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation that fits."""

    messages: Sequence[Message]  # those that fit, as the template takes them
    ids: torch.Tensor  # shape (1, tokens)
    pre_opened: bool  # the template has opened the thought already
    dropped: int = 0  # whole turns left out at the beginning
    spliced: bool = False  # the template would cut its text into other tokens
    negative: "Prompt | None" = None  # what the answer is steered away from

    @property
    def length(self) -> int:
        """In tokens."""
        return self.ids.shape[1]


def fit(loaded: Loaded, messages: Sequence[Message], settings: Settings, kept: Sequence[int] = ()) -> Prompt:
    """As much of the conversation as fits, rendered.

    `kept` are the tokens of an earlier turn: what the conversation has of them is not cut into tokens anew.
    Raises `BadConversation` for a message that does not fit the context window even without those before it.
    """
    if settings.thinking and not loaded.thinking:
        raise BadSetting(f"{loaded.row.label} has no thinking switch. Turn thinking off.")
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
            f"This message needs {needed} tokens, but {loaded.row.label} reads at most {fits} "
            "and needs the rest for its answer. Shorten it, or choose a model with a larger context."
        )
    prompt = replace(_prompt(loaded, shorter[index], settings), dropped=index)
    spliced = splice(kept, prompt.ids[0].tolist(), loaded.tokenizer)
    if len(spliced) <= fits:
        prompt = replace(prompt, ids=torch.tensor([spliced]), spliced=spliced != prompt.ids[0].tolist())
    if not settings.steers_away:
        return prompt
    turns = [m for m in shorter[index] if m.role != "system"]
    negative = _prompt(loaded, [Message("system", settings.negative_prompt), *turns], settings)
    if negative.length > fits:
        raise BadConversation(
            f"With the negative prompt the conversation needs {negative.length} tokens, but {loaded.row.label} reads "
            f"at most {fits}. Shorten the negative prompt, or clear the chat."
        )
    return replace(prompt, negative=negative)


def _prompt(loaded: Loaded, messages: Sequence[Message], settings: Settings) -> Prompt:
    ids = _rendered(loaded, messages, settings)
    tail = loaded.tokenizer.decode(ids[0, -8:])
    return Prompt(_told(loaded, messages), ids, pre_opened=tail.rstrip().endswith(OPEN))


def _told(loaded: Loaded, messages: Sequence[Message]) -> Sequence[Message]:
    return messages if loaded.system_role else fold_system(messages)


def _rendered(loaded: Loaded, messages: Sequence[Message], settings: Settings) -> torch.Tensor:
    """Token ids of shape (1, tokens); what people typed can not become a control token."""
    switch = {"enable_thinking": settings.thinking} if loaded.thinking else {}
    try:
        encoded = loaded.tokenizer.apply_chat_template(
            [m._asdict() for m in _told(loaded, messages)],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
            **switch,
        )
    except TemplateError as error:
        raise BadConversation(
            f"The chat template of {loaded.row.label} refuses this conversation: {error}. Clear the chat."
        ) from error
    return encoded["input_ids"]
