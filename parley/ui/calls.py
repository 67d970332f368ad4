"""How a program asks for an answer again: with gradio_client, and with curl."""

import json
import shlex
from collections.abc import Sequence

import gradio as gr
from gradio.route_utils import get_root_url

from parley.engines.base import Ran
from parley.messages import Message
from parley.snippet import call, listed, named


def address(request: gr.Request) -> str:
    """Where this visitor found the page, without a slash at its end."""
    asked = request.request
    return get_root_url(asked, asked.url.path, asked.scope.get("root_path"))


def client_program(url: str, ran: Ran) -> str:
    """Python that prints the same text, by the API at `url`."""
    *before, asked = ran.messages
    history = f"messages={listed(_plain(before))}"
    arguments = [repr(asked.content), history, *named(**ran.values), "api_name='/chat'"]
    lines = ["from gradio_client import Client", "", f"client = Client({url!r}, verbose=False)"]
    return "\n".join([*lines, f"answer = {call('client.predict', arguments)}", "print(answer.strip())"])


def curl_commands(url: str, ran: Ran) -> str:
    """Shell commands that stream the same text."""
    *before, asked = ran.messages
    body = {"message": asked.content, "messages": _plain(before), **ran.values}
    lines = [
        f"call={shlex.quote(f'{url}/gradio_api/call/v2/chat')}",
        f"body={shlex.quote(json.dumps(body, ensure_ascii=False))}",
        'id=$(curl -s "$call" -H \'Content-Type: application/json\' -d "$body" | cut -d\'"\' -f4)',
        'curl -sN "$call/$id"',
    ]
    return "\n".join(lines)


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [m._asdict() for m in messages]
