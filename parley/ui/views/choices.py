"""How an answer was chosen, token by token: what "Show choices" asks the server, and the texts of the view.

choices.js asks, and token_view.js draws what comes back. Nothing of it is kept here.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import gradio as gr

from parley.api import visitors
from parley.api.plain import plain, short
from parley.api.turns import zerogpu_errors
from parley.api.turns.turn_runner import begun_with
from parley.errors import BadConversation, ChatError
from parley.events import Answer, Choices
from parley.generation.reasoning_parser import rejoined
from parley.messages import Message, build_messages, build_plain_text
from parley.models import registry
from parley.serving import gpu_choices, turn_settings
from parley.serving.gpu_choices import Asked
from parley.settings import OPTIONS, Settings, replace_lone_surrogates
from parley.ui import stored_answer
from parley.ui.render import TEXTS as ANSWER
from parley.ui.views import conversations

T = TypeVar("T")
MAX_CHARACTERS = 20_000  # of a text that is only scored
AT_ONCE = {  # of choices.js
    "show": "Show choices",
    "title": "How the words were chosen",
    "scored": "How likely each word was",
    "back": "Back to the conversation",
    "reading": "Reading the answer again…",
    "failed": "The server was not reached. Close this view, and open it again.",
    "gone": "This answer is no longer in the conversation.",
    "seconds": "This model runs on a GPU. To read the answer again asks for {count} s of your GPU time.",
    "read": "Read it",
    "paste": "A text to look at",
    "look": "Score it",
}
VIEW_TEXTS = {  # of what draws, which come with what is drawn
    "likely": "likely",
    "unlikely": "unlikely",
    "prompt": "The prompt: {count} tokens",
    "answer": "The answer",
    "pick": "Point at a word, or use the arrow keys.",
    "earlier": "Earlier token",
    "later": "Later token",
    "place": "Token {count} of {all}",
    "part": "a part of a character",
    "first": "This token begins the text, so nothing says how likely it is.",
    "control": "control token",
    "model": "By the model: {share}, rank {rank}",
    "after": "After the settings: {share}, rank {rank}",
    "entropy": "Entropy: {count} bits",
    "entropy_help": "How open the choice was: 0 bits is certain, and each bit doubles the number of even choices.",
    "token": "Token",
    "by_model": "Model",
    "by_settings": "After",
    "chosen": "This token was chosen.",
    "removed": "removed by {setting}",
    "noise": "Noise",
    "quotient": "Quotient",
    "drawn": "The draw takes the largest quotient of probability and noise. Each token gets new noise from the seed.",
    "parts": "Parts of this view",
    "words": "Words",
    "tree": "Tree",
    "passes": "Passes",
    "rivals": "Hypotheses here",
    "score": "Score",
    "finished": ANSWER["finished"],
    "similarity": "Similarity",
    "weighed": "The largest score is taken: probability less similarity to the text so far, weighed by penalty alpha.",
    "was_drafted": "Drafted, and accepted",
    "was_own": "Chosen by the model itself",
    "step": "Step of the search",
    "step_of": "Step {count} of {all}",
    "earlier_step": "Earlier step",
    "later_step": "Later step",
    "group": "Group {count}",
    "tree_of": "{count} hypotheses, best first",
    "tree_says": "A line that ends died there. Scores are log probabilities, divided by the length.",
    "with_drafts": "With drafts",
    "plain": "Plain decoding",
    "passes_count": "{count} passes",
    "saved": "{count} passes were saved.",
    "kept": "{accepted} of {drafted} draft tokens were accepted.",
    "pass": "Pass {count}: {accepted} of {drafted} accepted",
    "accepted": "drafted, accepted",
    "rejected": "drafted, rejected",
    "own": "by the model",
    "from_here": "Step on from here",
    "chain": "The settings work in this order: {settings}",
    "go": "Go on from “{token}” instead",
    "branch": "Press a token to go on from it. The answer so far stays as a version.",
    "rounding": "The weights are rounded. Where it was measured, rounding moved a probability by at most {share}.",
    "layer": "Layer {count}",
    "compared": "compared with layer {count}",
}
TEXTS = AT_ONCE | VIEW_TEXTS
TOO_LONG = f"A text may have at most {MAX_CHARACTERS:,} characters. Shorten it."
SEED = ANSWER["seed"]
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def add() -> None:
    """Adds the event behind "Show choices"."""
    read = gr.Button("Read choices", elem_id="read-choices", visible="hidden")
    asked, found = gr.JSON(visible=False), gr.JSON(visible=False)
    reading = read.click(
        look, asked, found, js="choices.asked", concurrency_limit=None, trigger_mode="multiple", **PRIVATE
    )
    reading.success(None, found, None, js="choices.found", queue=False, **PRIVATE)
    reading.failure(None, None, None, js="choices.failed", queue=False, **PRIVATE)


Look = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


def numbered(look: Look) -> Callable[[Any], Awaitable[dict[str, Any]]]:
    """An event handler for what a script asks: its number comes back, with what `look` finds, or with an `error`.

    So the script knows what an answer belongs to. The error is a sentence.
    """

    @wraps(look)
    async def answer(asked: Any) -> dict[str, Any]:
        values = asked if isinstance(asked, Mapping) else {}
        number = {"number": values.get("number")}
        try:
            return number | await look(values)
        except ChatError as refusal:
            return number | {"error": str(refusal)}

    return answer


@numbered
async def look(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the view shows of an answer, or of a text."""
    stored = stored_answer.read(values.get("stored"))
    settings = await asyncio.to_thread(settings_of, stored.settings or values.get("settings"), bool(stored.ids))
    text = values.get("text") or ""
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise BadConversation(TOO_LONG)
    history = values.get("messages") or []
    messages = await messages_of(history, stored, settings) if history else []
    answer = stored.ids or replace_lone_surrogates(text)
    asked = Asked(answer, stored.prompt_ids, stored.given)
    if seconds := await gpu_seconds(values, asked, messages, settings):
        return {"seconds": seconds}
    found = await with_gpu(settings, lambda gone: gpu_choices.choices(asked, messages, settings, gone))
    return described(found, settings) | {"branches": bool(stored.ids)}


async def gpu_seconds(
    values: Mapping[str, Any], asked: gpu_choices.Question, messages: Sequence[Message], settings: Settings
) -> int:
    """The GPU seconds that the visitor has to agree to first; 0 where they have, or where it needs none."""
    return 0 if values.get("spends") else await asyncio.to_thread(gpu_choices.gpu_seconds, asked, messages, settings)


async def with_gpu(settings: Settings, work: Callable[[threading.Event], T]) -> T:
    """See `visitors.look`. What the `spaces` client raises becomes a `ChatError`."""
    try:
        return await visitors.look(settings, work)
    except gr.Error as error:
        if not (sentence := zerogpu_errors.sentence(error)):
            raise
        raise ChatError(sentence) from error


def settings_of(values: Any, seeded: bool) -> Settings:
    """Those of an answer, or of the page, which may have come as text; without the seed where nothing was drawn."""
    given = {name: conversations.typed(name, value) for name, value in dict(values or {}).items()}
    settings = turn_settings.read(given)
    return (
        settings
        if seeded or registry.find(settings.model).engine == "remote"
        else settings.model_copy(update={"seed": None})
    )


async def messages_of(history: list[Any], stored: stored_answer.StoredAnswer, settings: Settings) -> list[Message]:
    """What the model read before the answer, as `ChatFunction` gave it."""
    if settings.plain:
        return build_plain_text(history, "")
    messages = build_messages(history, "", settings.system_prompt)
    before = stored.before if stored.before != Answer() else await asyncio.to_thread(begun_with, settings)
    if before != Answer():
        messages.append(Message("assistant", rejoined(before.text, before.thought)))
    return messages


def labels(chain: Sequence[str], strategy: str) -> dict[str, str]:
    """The names of what changed scores: those of settings, or of the strategy whose watermark it is."""
    return {name: OPTIONS[name].label if name in OPTIONS else strategy for name in chain}


def described(choices: Choices, settings: Settings) -> dict[str, Any]:
    """What token_view.js draws."""
    strategy = settings.effective_strategy
    seed = [] if settings.seed is None or not strategy.samples else [SEED.format(seed=settings.seed)]
    about = [registry.find(settings.model).label, *([strategy.label] if choices.answer else []), *seed]
    answer = tuple(replace(each, rivals=()) for each in choices.answer)  # `beams` has them
    return short(plain(replace(choices, answer=answer))) | {
        "labels": labels(choices.chain, strategy.label),
        "about": " · ".join(about),
        "texts": VIEW_TEXTS,
    }
