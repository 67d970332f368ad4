"""The endpoints beside /chat: /models and /strategies before, /tokens and /next after. And a fix of Gradio's API."""

from typing import Any

import gradio as gr
from gradio.blocks import APIInfo

from parley import strategies
from parley.api import generate, sessions
from parley.api.plain import plain
from parley.api.turns.failures import program_error
from parley.api.turns.program_turn import WITH_SETTINGS, ProgramTurns
from parley.api.visitors import look
from parley.errors import BadConversation, ChatError
from parley.messages import build_messages
from parley.models import registry
from parley.models.remote_servers import PLACE
from parley.models.spec import ModelSpec
from parley.serving import gpu_choices, turn
from parley.serving.gpu_choices import Asked, AskedNext
from parley.serving.waiting_line import LINE
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
        "running": LINE.num_running(row),
        "waiting": LINE.num_waiting(row),
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
        raise program_error(refusal) from refusal
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


async def tokens(
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
        asked = Asked(given, checked_ids(prompt_ids or []), prompt=False)
        found = await look(chosen, lambda gone: gpu_choices.choices(asked, prompt, chosen, gone))
    except ChatError as refusal:
        raise program_error(refusal) from refusal
    return [plain(each) for each in found.answer or found.prompt]


async def next_token(
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
        asked = AskedNext(checked_ids(ids or []), forced=forced, guess=guessed)
        return plain(await look(chosen, lambda gone: gpu_choices.next_token(asked, prompt, chosen, gone)))
    except ChatError as refusal:
        raise program_error(refusal) from refusal


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
    """A page whose API has the default None for the settings of /chat and /generate: the model's own value.

    Gradio's default would be the initial value of the control, which is right for the default model only. Its clients
    would send that value for a setting that the program leaves out. Types and bounds are those of the settings.
    """

    turns: ProgramTurns  # runs the turns of programs

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default_config = sessions.SharedConfig(self)

    def queue(self, *args: Any, **kwargs: Any) -> "Page":
        """See `gr.Blocks`."""
        super().queue(*args, **kwargs)
        self._queue.sleep_when_free = sessions.POLL_SECONDS
        return self

    def get_api_info(self, *args: Any, **kwargs: Any) -> APIInfo:
        """Gradio's API info, with what is known of the settings, and with other types of /generate."""
        info = super().get_api_info(*args, **kwargs)
        for name in WITH_SETTINGS:
            endpoint = info["named_endpoints"].get(f"/{name}")
            for parameter in endpoint["parameters"] if endpoint else ():
                _describe(name, parameter)
        return info


def _describe(endpoint: str, parameter: Any) -> None:
    """Says of a parameter of this endpoint what is known of it."""
    name = parameter["parameter_name"]
    if name in OPTIONS:
        o = OPTIONS[name]
        parameter |= {"parameter_default": None, "type": o.schema | {"description": o.help}}
        parameter["python_type"] = {"type": o.kind.__name__, "description": o.help}
    elif endpoint == "generate":
        python_type, schema, description = generate.PARAMETERS[name]
        parameter |= {"type": schema | {"description": description}, "label": name}
        parameter["python_type"] = {"type": python_type, "description": description}
        parameter["parameter_has_default"] = name != "messages"


def add() -> None:
    """Adds /models, /strategies, /tokens and /next to the present `gr.Blocks` context."""
    gr.api(models, api_name="models", queue=False)
    gr.api(list_strategies, api_name="strategies", queue=False)
    gr.api(tokens, api_name="tokens", concurrency_limit=None)
    gr.api(next_token, api_name="next", concurrency_limit=None)
