"""/v1/models, and /tokenize, which tells the tokens of a text or a conversation."""

import asyncio
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from parley.api.openai.chat import checked_tools
from parley.api.openai.requests import TokenizeRequest, read
from parley.errors import BadSetting
from parley.messages import build_messages
from parley.models import registry
from parley.models.spec import ModelSpec
from parley.serving import turn, turn_settings

CREATED = 1_700_000_000  # a date that the form of the OpenAI API demands, and nobody knows


async def list_models(request: Request, body: Any) -> Response:
    """All models, the default first."""
    rows = await asyncio.to_thread(_rows)
    return JSONResponse({"object": "list", "data": [_described(row) for row in rows]})


async def one_model(request: Request, body: Any) -> Response:
    """One model."""
    row = await asyncio.to_thread(registry.find, request.path_params["model"])
    return JSONResponse(_described(row))


def _rows() -> list[ModelSpec]:
    default = registry.default().name
    return sorted(registry.models().values(), key=lambda row: row.name != default)


def _described(row: ModelSpec) -> dict[str, Any]:
    traits = registry.traits(row)
    return {
        "id": row.name,
        "object": "model",
        "created": CREATED,
        "owned_by": row.id.partition("/")[0] if row.id and not row.folder else "parley",
        "max_model_len": traits.context,
        "tools": bool(traits.tools),
        "thinking": traits.thinking,
    }


async def tokenize(request: Request, body: Any) -> Response:
    """The tokens of a text, or of a conversation in the chat template."""
    return JSONResponse(await asyncio.to_thread(_tokenized, read(TokenizeRequest, body)))


def _tokenized(asked: TokenizeRequest) -> dict[str, Any]:
    if (asked.prompt is None) == (asked.messages is None):
        raise BadSetting("Send either a prompt, which is a text, or messages.", name="prompt")
    settings = turn_settings.read({"model": asked.model} if asked.model else {})
    settings = settings.model_copy(update={"tools": checked_tools(asked.tools)})
    messages = build_messages(asked.messages, "") if asked.messages is not None else []
    ids, context = turn.tokenize(settings, asked.prompt or "", messages, special=asked.add_special_tokens)
    pieces = turn.token_bytes(settings.model, ids)
    strings = [piece.decode("utf-8", "replace") for piece in pieces]
    return {"count": len(ids), "max_model_len": context, "tokens": ids, "token_strs": strings}
