"""The endpoints beside /chat: /models and /strategies before, /tokens and /next after. And fixes of Gradio's API."""

from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.routing import APIRoute
from gradio.blocks import APIInfo
from gradio.data_classes import ResetBody
from gradio.server_messages import ProcessCompletedMessage

from parley import strategies
from parley.api.plain import plain
from parley.errors import BadConversation, ChatError
from parley.messages import build_messages
from parley.models import registry
from parley.models.remote_servers import PLACE
from parley.models.spec import ModelSpec
from parley.serving import turn
from parley.serving.waiting_line import LINES
from parley.settings import OPTIONS, Settings, replace_lone_surrogates
from parley.strategies.requirements import REQUIREMENTS

MAX_TYPED_CHARACTERS = 2000  # of a text that is forced, and of a guess


def models() -> list[dict[str, Any]]:
    """The models: name (for /chat), label, whether /chat uses it if none is named, parameters, licence, whether it has
    a thinking switch, the levels of reasoning effort that it takes, its recommended settings, how it would run on this
    machine or why it cannot run, the memory that decides this, what an answer among others promises compared with the
    same one alone, and how many of its answers run and wait in this process, with the tokens per second of all of
    them together.
    """
    default = registry.default().name
    return [_described(row) | {"default": row.name == default} for row in registry.models().values()]


def _described(row: ModelSpec) -> dict[str, Any]:
    traits = registry.traits(row)
    estimate = turn.estimate(row, traits)
    elsewhere = {"remote": PLACE}.get(row.engine, "")
    return {
        "name": row.name,
        "label": row.label,
        "parameters": row.parameters,
        "licence": row.licence,
        "thinking": traits.thinking,
        "reasoning_efforts": list(traits.efforts),
        "context": traits.context,
        "recommended": dict(traits.recommended),
        "plan": row.problem or (estimate.sentence if estimate else elsewhere),
        "memory": estimate and estimate.figures,
        "in_company": estimate and estimate.plan and estimate.plan.in_company,
        "running": LINES[row.name].num_running,
        "waiting": LINES[row.name].num_waiting,
        "tokens_per_second": round(turn.POOL.tokens_per_second(row), 1),
    }


def list_strategies(model: str = "") -> list[dict[str, Any]]:
    """The decoding strategies: name (for /chat), what each does, the settings that it uses with this model (the
    default if none is named) and their defaults, what it demands, how many tokens its watermark needs to be found
    (0: it makes none), and, if this model cannot run it, why.
    """
    try:
        spec = registry.find(model)
        traits = registry.strategy_traits(spec)
    except ChatError as refusal:
        raise gr.Error(str(refusal), print_exception=False) from refusal
    return [
        {
            "name": row.name,
            "label": row.label,
            "summary": row.summary,
            "when": row.when,
            "source": row.source,
            "settings": {name: OPTIONS[name].default for name in row.uses if name in spec.capabilities.settings},
            "demands": [REQUIREMENTS[name].needs for name in row.requirements],
            "mark_tokens": row.mark_tokens,
            "unavailable": row.refusal(traits),
        }
        for row in strategies.STRATEGIES.values()
    ]


def tokens(
    messages: list[dict[str, Any]],
    answer: str = "",
    ids: list[int] | None = None,
    prompt_ids: list[int] | None = None,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Why each token of an answer was chosen. The answer is a text, or better its exact ids.

    For each token: id, text, logprob (by the model alone, in nats) and rank; after and after_rank, the same after the
    processors of the strategy; entropy (nats); and the candidates, the likeliest first, each with its id, text,
    logprob, after (None where it was removed), removed_by (the setting that removed it), and noise and quotient: of
    probability and random noise, of which the largest is drawn (None without a seed, and where nothing is drawn).

    With exact ids, a search runs again: rivals are the hypotheses of a beam search at this token, each with id, text,
    score, parent (its place among those of the token before), finished, group, and chosen (for the answer); drafted
    says whether it was a draft token that was accepted; candidates of contrastive search have similarity and value, by
    which it chooses; those of DoLa have early, the logprob by early_layer.

    `messages` (a list of {"role", "content"}) is the conversation before the answer; without any, the answer is a text
    that is only scored, from its first token, which nothing says anything of. `prompt_ids` are its exact tokens where
    they are known, and `settings` those of the answer, with its model, strategy and seed.
    """
    try:
        chosen = Settings.check(settings or {})
        prompt = build_messages(messages, "", chosen.system_prompt) if messages else []
        given = answer if ids is None or not messages else checked_ids(ids)
        found = turn.choices(prompt, chosen, given, checked_ids(prompt_ids or []), prompt=False)
    except ChatError as refusal:
        raise gr.Error(str(refusal), print_exception=False) from refusal
    return [plain(each) for each in found.answer or found.prompt]


def next_token(
    messages: list[dict[str, Any]],
    ids: list[int] | None = None,
    text: str = "",
    guess: str = "",
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What follows an answer so far: its exact `ids`, and then a forced `text`, whose tokens are added to them.

    Returns ids and pieces (their texts) so far; score: the token that the strategy and seed choose next, with its
    candidates, as /tokens describes them; kept: how many tokens of the vocabulary the settings leave; chain: the
    settings that worked, in their order; guess: the same figures of the first token of the text `guess`; and ended,
    where the last token ends an answer. Other settings of the same text need no pass of the model.
    """
    try:
        chosen = Settings.check(settings or {})
        prompt = build_messages(messages, "", chosen.system_prompt)
        forced, guessed = typed_text(text), typed_text(guess)
        return plain(turn.next_token(prompt, chosen, checked_ids(ids or []), forced=forced, guess=guessed))
    except ChatError as refusal:
        raise gr.Error(str(refusal), print_exception=False) from refusal


def typed_text(value: Any) -> str:
    """Raises `BadConversation` where this is no text, or a long one."""
    if not isinstance(value, str) or len(value) > MAX_TYPED_CHARACTERS:
        raise BadConversation(f"Type a text of at most {MAX_TYPED_CHARACTERS} characters.")
    return replace_lone_surrogates(value)


def checked_ids(values: Any) -> list[int]:
    """Raises `BadConversation` where these are no tokens."""
    if not isinstance(values, list) or any(type(each) is not int for each in values):
        raise BadConversation("Tokens are a list of whole numbers such as [504, 44588].")
    return values


class Page(gr.Blocks):
    """A page whose API has the default None for the settings of /chat, which stands for the model's own value.

    Gradio's default would be the initial value of the control, which is right for the default model only. Its clients
    would send that value for a setting that the program leaves out.
    """

    def get_api_info(self, *args: Any, **kwargs: Any) -> APIInfo:
        """Gradio's API info, with other defaults for /chat."""
        info = super().get_api_info(*args, **kwargs)
        chat = info["named_endpoints"].get("/chat")
        for parameter in chat["parameters"] if chat else ():
            if parameter["parameter_name"] in OPTIONS:
                parameter["parameter_default"] = None
        return info


async def reset(request: Request, body: ResetBody) -> dict[str, bool]:
    """Ends the call with this event id. gradio_client uses it if the id was not known yet when the call was cancelled.

    Gradio's own endpoint of this name does nothing, so that the call would run to its end.
    """
    queue = request.app.get_blocks()._queue
    if event := queue.event_ids_to_events.get(body.event_id):
        queue.send_message(event, ProcessCompletedMessage(output={}, success=True))  # it closes the client's stream
        event.alive = False  # Gradio checks it after each yield
        await queue.remove_from_queue(body.event_id)
    return {"success": True}


ROUTES = [APIRoute("/gradio_api/reset", reset, methods=["POST"])]  # they precede Gradio's routes


def add() -> None:
    """Adds /models, /strategies, /tokens and /next to the present `gr.Blocks` context."""
    gr.api(models, api_name="models", queue=False)
    gr.api(list_strategies, api_name="strategies", queue=False)
    gr.api(tokens, api_name="tokens", concurrency_limit=2)
    gr.api(next_token, api_name="next", concurrency_limit=2)
