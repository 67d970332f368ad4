"""Renders a conversation with the chat template. Drops the oldest turns where the context window is too small."""

import bisect
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from parley.errors import BadConversation, BadSetting, NotSupported, TooLong
from parley.events import ContextUse
from parley.generation.chat_template import RenderedChat, for_template, render
from parley.generation.loaded_model import LoadedModel
from parley.generation.reasoning_parser import ReasoningParser, split_thought
from parley.generation.token_splice import reuse_generated_ids
from parley.messages import Message, drop_oldest_turn
from parley.models.traits import tool_dialect
from parley.settings import Settings


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation that fits the context window."""

    messages: Sequence[Message]  # the messages that fit, as the template takes them
    ids: torch.Tensor  # shape (1, tokens)
    in_reasoning: bool  # it ends within a thought, opened by the template or left open by the answer to continue
    continues: bool = False  # it ends with the first part of the answer
    dropped: int = 0  # the number of turns left out at the start
    as_template: bool = True  # `apply_chat_template` gives the same tokens for `messages`
    shortened: bool = False  # the template left out a part of an earlier answer
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
    Raises `TooLong` where the last message alone does not fit the context window.
    """
    max_prompt_tokens = _max_prompt_tokens(loaded, settings)
    if settings.plain:
        return _plain_text(loaded, messages, settings, cached, max_prompt_tokens)
    _check_chat(loaded, settings)
    candidates, index = _candidates(messages), 0
    chat = render(loaded, candidates[0], settings)
    if len(chat.ids) > max_prompt_tokens:
        index = _first_that_fits(loaded, candidates, settings, max_prompt_tokens)
    if index == len(candidates):
        needed = _length(loaded, candidates[-1], settings)
        raise TooLong(
            f"This message needs {needed} tokens, but {loaded.spec.label} reads at most {max_prompt_tokens} "
            "and needs the rest for its answer. Shorten it, or choose a model with a larger context."
        )
    chat = render(loaded, candidates[index], settings) if index else chat
    prompt = replace(_prompt(loaded, candidates[index], settings, chat), dropped=index)
    spliced = _as_generated(loaded, candidates[index], settings, cached) if prompt.continues else None
    spliced = spliced or reuse_generated_ids(cached, prompt.ids[0].tolist(), loaded.tokenizer)
    if len(spliced) <= max_prompt_tokens:
        prompt = replace(prompt, ids=torch.tensor([spliced]), spliced=spliced != prompt.ids[0].tolist())
    if not settings.steers_away:
        return prompt
    turns = [m for m in candidates[index] if m.role != "system"]
    away = [Message("system", settings.negative_prompt), *turns]
    negative = _prompt(loaded, away, settings, render(loaded, away, settings))
    if negative.length > max_prompt_tokens:
        raise TooLong(
            f"With the negative prompt the conversation needs {negative.length} tokens, but {loaded.spec.label} reads "
            f"at most {max_prompt_tokens}. Shorten the negative prompt, or clear the chat."
        )
    return replace(prompt, negative=negative)


def rendered_ids(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> list[int]:
    """The tokens of a conversation in the chat template, however many there are. Raises `ChatError`."""
    _check_chat(loaded, settings)
    return render(loaded, messages, settings).ids


def context_use(
    loaded: LoadedModel, messages: Sequence[Message], settings: Settings, cached: Sequence[int] = ()
) -> ContextUse:
    """How much of the context window these messages take, as `render_prompt` would render them.

    Raises `BadConversation` where the template cannot render them.
    """
    limit, dropped = _max_prompt_tokens(loaded, settings), 0
    if settings.plain or not loaded.chats:
        ids = loaded.tokenizer.encode("".join(m.content for m in messages))
    else:
        candidates = _candidates(messages)
        ids = render(loaded, messages, settings).ids
        if len(ids) > limit:
            dropped = min(_first_that_fits(loaded, candidates, settings, limit), len(candidates) - 1)
    tokens = len(ids) if dropped else len(reuse_generated_ids(cached, ids, loaded.tokenizer))
    return ContextUse(tokens, loaded.context, limit, dropped)


def _max_prompt_tokens(loaded: LoadedModel, settings: Settings) -> int:
    return loaded.context - min(settings.max_new_tokens, loaded.context // 4)


def _candidates(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation, and what is left of it without its oldest turn, its two oldest turns, and so on."""
    candidates = [list(messages)]
    while (rest := drop_oldest_turn(candidates[-1])) is not None:
        candidates.append(rest)
    return candidates


def _first_that_fits(
    loaded: LoadedModel, candidates: Sequence[Sequence[Message]], settings: Settings, limit: int
) -> int:
    """The index of the longest candidate that fits, but not the first; their number if none does."""
    # A shorter conversation never has more tokens, so bisection finds it.
    return bisect.bisect_left(candidates, -limit, lo=1, key=lambda m: -_length(loaded, m, settings))


def _plain_text(
    loaded: LoadedModel, messages: Sequence[Message], settings: Settings, cached: Sequence[int], limit: int
) -> Prompt:
    """The prompt of `limit` tokens at most that is just the text, with the special tokens of the tokenizer."""
    text = "".join(m.content for m in messages)
    own = _given_ids(loaded, settings) or loaded.tokenizer.encode(text)
    ids = reuse_generated_ids(cached, own, loaded.tokenizer)
    away = loaded.tokenizer.encode(f"{settings.negative_prompt}\n\n{text}") if settings.steers_away else []
    if (needed := max(len(own), len(away))) > limit:
        raise TooLong(
            f"This text needs {needed} tokens, but {loaded.spec.label} reads at most {limit} and needs the rest to go "
            "on. Shorten it, or choose a model with a larger context."
        )
    ids = ids if len(ids) <= limit else own
    prompt = Prompt(messages, torch.tensor([ids]), in_reasoning=False, continues=True, as_template=False)
    return replace(prompt, negative=replace(prompt, ids=torch.tensor([away])) if away else None)


def _given_ids(loaded: LoadedModel, settings: Settings) -> list[int]:
    """The tokens that are the prompt. Raises `BadConversation` for one that the model does not have."""
    ids, size = list(settings.prompt_ids), len(loaded.tokenizer)
    if unknown := next((each for each in ids if not 0 <= each < size), None):
        sentence = f"{loaded.spec.label} has no token {unknown}: its tokens are 0 to {size - 1}. Send others."
        raise BadConversation(sentence, name="prompt", valid={"minimum": 0, "maximum": size - 1})
    return ids


def _check_chat(loaded: LoadedModel, settings: Settings) -> None:
    """Raises `BadSetting` for what this model cannot do in a conversation."""
    if not loaded.chats:
        raise BadSetting(
            f"{loaded.spec.label} has no chat template: it was not trained to chat. Set mode to 'plain text'."
        )
    _check_thinking(loaded, settings)
    if settings.tools and not tool_dialect(loaded.tokenizer.chat_template):
        sentence = (
            f"The chat template of {loaded.spec.label} knows no tools. Leave out tools, or choose another model."
        )
        raise NotSupported(sentence, name="tools")


def _check_thinking(loaded: LoadedModel, settings: Settings) -> None:
    """Raises `BadSetting` for what this model cannot do."""
    reasoning, label = loaded.reasoning, loaded.spec.label
    if settings.thinking and not reasoning.switch:
        reason = ", because it always thinks" if reasoning.always else ""
        raise BadSetting(f"{label} has no thinking switch{reason}. Turn thinking off.")
    if settings.sets_effort and settings.reasoning_effort not in reasoning.efforts:
        levels = f"takes only {', '.join(reasoning.efforts)} as" if reasoning.efforts else "has no levels of"
        raise BadSetting(f"{label} {levels} reasoning effort. Set reasoning_effort to 'default'.")
    if settings.thinking_budget and not (reasoning.switch or reasoning.always):
        raise BadSetting(f"{label} does not think, so it keeps no thinking budget. Set thinking_budget to 0.")


def _prompt(loaded: LoadedModel, messages: Sequence[Message], settings: Settings, chat: RenderedChat) -> Prompt:
    continues = messages[-1].role == "assistant"
    in_reasoning = loaded.dialect.opens_thought(chat.text)
    if continues:
        text, thought = split_thought(messages[-1].content)
        in_reasoning = bool(thought and not text)
    return Prompt(
        for_template(loaded, messages, settings),
        torch.tensor([chat.ids]),
        in_reasoning=in_reasoning,
        continues=continues,
        as_template=chat.as_template,
        shortened=any(not _contains(chat.text, m.content) for m in messages[:-1] if m.role == "assistant"),
    )


def _contains(rendered: str, text: str) -> bool:
    """Whether a rendered conversation has this text, perhaps in another case, with other blank space, or as JSON."""
    whole, *forms = ("".join(each.split()).casefold() for each in (rendered, text, json.dumps(text)[1:-1]))
    return any(form in whole for form in forms)


def _length(loaded: LoadedModel, messages: Sequence[Message], settings: Settings) -> int:
    return len(render(loaded, messages, settings).ids)


def _as_generated(
    loaded: LoadedModel, messages: Sequence[Message], settings: Settings, cached: Sequence[int]
) -> list[int] | None:
    """The conversation as the tokens of its last turn.

    None where that turn did not end with exactly this answer, and where it ended between the thought and the text.
    """
    asked = render(loaded, messages[:-1], settings)
    reused = reuse_generated_ids(cached, asked.ids, loaded.tokenizer)
    if list(cached[: len(reused)]) != reused:
        return None
    dialect = loaded.dialect
    parser = ReasoningParser(in_thought=dialect.opens_thought(asked.text), dialect=dialect)
    raw = loaded.tokenizer.decode(cached[len(reused) :])
    text, thought = parser.feed(raw, last=True)
    same = (text, thought) == split_thought(messages[-1].content) and not parser.ended
    return list(cached) if same and (text or dialect.closing.strip() not in raw) else None
