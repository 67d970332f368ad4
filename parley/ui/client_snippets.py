"""Programs that request the same answer from the API: with gradio_client, and with curl."""

import json
import shlex

import gradio as gr
from gradio.route_utils import get_root_url

from parley.events import RunRecord
from parley.snippet import call, listed, named


def address(request: gr.Request) -> str:
    """The URL of the page for this visitor, without a final slash."""
    http_request = request.request
    assert http_request is not None  # it is None only in a request that Gradio did not make
    return get_root_url(http_request, http_request.url.path, http_request.scope.get("root_path"))


def client_program(url: str, record: RunRecord) -> str:
    """A Python program that prints the same answer, with the API at `url`."""
    message, earlier_messages = _message_and_history(record)
    history = f"messages={listed(earlier_messages)}"
    arguments = [repr(message), history, *named(**record.values), "api_name='/chat'"]
    lines = ["from gradio_client import Client", "", f"client = Client({url!r}, verbose=False)"]
    return "\n".join([*lines, f"answer = {call('client.predict', arguments)}", "print(answer.strip())"])


def curl_commands(url: str, record: RunRecord) -> str:
    """Shell commands that stream the same answer."""
    message, earlier_messages = _message_and_history(record)
    body = {"message": message, "messages": earlier_messages, **record.values}
    lines = [
        f"call={shlex.quote(f'{url}/gradio_api/call/v2/chat')}",
        f"body={shlex.quote(json.dumps(body, ensure_ascii=False))}",
        'id=$(curl -s "$call" -H \'Content-Type: application/json\' -d "$body" | cut -d\'"\' -f4)',
        'curl -sN "$call/$id"',
    ]
    return "\n".join(lines)


def _message_and_history(record: RunRecord) -> tuple[str, list[dict[str, str]]]:
    """The question and the messages before it. If an answer was continued, the question is empty."""
    *earlier, last = (m.as_dict() for m in record.messages)
    return (last["content"], earlier) if last["role"] == "user" else ("", [*earlier, last])
