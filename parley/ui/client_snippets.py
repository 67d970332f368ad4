"""How a program asks for an answer again: with gradio_client, and with curl."""

import json
import shlex

import gradio as gr
from gradio.route_utils import get_root_url

from parley.events import RunRecord
from parley.snippet import call, listed, named


def address(request: gr.Request) -> str:
    """Where this visitor found the page, without a slash at its end."""
    asked = request.request
    assert asked is not None  # it is None only for a function that Gradio does not call
    return get_root_url(asked, asked.url.path, asked.scope.get("root_path"))


def client_program(url: str, record: RunRecord) -> str:
    """Python that prints the same text, by the API at `url`."""
    asked, before = _asked(record)
    history = f"messages={listed(before)}"
    arguments = [repr(asked), history, *named(**record.values), "api_name='/chat'"]
    lines = ["from gradio_client import Client", "", f"client = Client({url!r}, verbose=False)"]
    return "\n".join([*lines, f"answer = {call('client.predict', arguments)}", "print(answer.strip())"])


def curl_commands(url: str, record: RunRecord) -> str:
    """Shell commands that stream the same text."""
    asked, before = _asked(record)
    body = {"message": asked, "messages": before, **record.values}
    lines = [
        f"call={shlex.quote(f'{url}/gradio_api/call/v2/chat')}",
        f"body={shlex.quote(json.dumps(body, ensure_ascii=False))}",
        'id=$(curl -s "$call" -H \'Content-Type: application/json\' -d "$body" | cut -d\'"\' -f4)',
        'curl -sN "$call/$id"',
    ]
    return "\n".join(lines)


def _asked(record: RunRecord) -> tuple[str, list[dict[str, str]]]:
    """The question and what came before it; no question where an answer was continued."""
    *before, last = (m._asdict() for m in record.messages)
    return (last["content"], before) if last["role"] == "user" else ("", [*before, last])
