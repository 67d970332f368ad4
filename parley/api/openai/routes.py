"""The routes of the OpenAI-compatible API."""

from fastapi.routing import APIRoute

from parley.api.openai.chat import chat_completions
from parley.api.openai.completions import completions
from parley.api.openai.doors import door
from parley.api.openai.models import list_models, one_model, tokenize

ROUTES = [
    APIRoute("/v1/chat/completions", door(chat_completions), methods=["POST"]),
    APIRoute("/v1/completions", door(completions), methods=["POST"]),
    APIRoute("/v1/models", door(list_models), methods=["GET"]),
    APIRoute("/v1/models/{model:path}", door(one_model), methods=["GET"]),
    APIRoute("/tokenize", door(tokenize), methods=["POST"]),
]
