"""Errors of a chat completions server, each as one sentence for the visitor that says what to do next.

A sentence quotes a server only for the reason of a refusal, with the key removed, and never quotes a library.
"""

import email.utils
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub.errors import HTTPError, OverloadedError, TextGenerationError

from parley.errors import ServerFault

# What reading raises if the server sends something other than a stream of chunks.
MALFORMED = (ValueError, TypeError, AttributeError, LookupError)
REFUSED = (400, 413, 422)
STATUSES = {
    401: "The server of {name} does not accept this app's key. The owner of this app has to change {key_name}.",
    402: "The credit that pays for {name} is used up. Choose another model until the owner of this app adds credit.",
    403: "This app's key may not use {name}. The owner of this app has to set {key_name} to another key.",
    404: "The server has no {name}. The owner of this app has to check REMOTE_MODELS and REMOTE_BASE_URL.",
    408: "The server of {name} took too long. Press Retry, or choose another model.",
    429: "The server of {name} gets too many requests now. Press Retry {when}.",
    503: "The server of {name} is starting or overloaded. Press Retry {when}.",
    504: "The server of {name} took too long. Press Retry, or choose another model.",
}
OTHER_STATUS = "The server of {name} fails with error {status}. Press Retry {when}, or choose another model."
SILENT = "The server of {name} has sent nothing for {seconds} seconds. Press Retry, or choose another model."
CUT = "The server of {name} broke off in the middle of the answer. Press Retry."
NO_STREAM = "The server of {name} sends no chat completions. The owner of this app has to check REMOTE_BASE_URL."
GARBLED = "The server of {name} sent something that cannot be read. Press Retry, or choose another model."
FLOOD = "The server of {name} sent far more than it was asked for, and was cut off. Choose another model."
OWN_ERROR = "The server of {name} reports an error of its own. Press Retry, or choose another model."
UNTRUSTED = "The server of {name} cannot prove who it is. The owner of this app has to check its certificate."
UNKNOWN = "The address of the server of {name} is not known. The owner of this app has to check it."
UNREACHED = "The server of {name} does not answer. Press Retry in a moment, or choose another model."


class ServerError(Exception):
    """An error that no library raises. Its text is one of the templates above."""


def to_sentence(error: Exception, begun: bool, **names: str) -> ServerFault:
    """The exception with the sentence for the error that ended a stream; `begun` if some text had arrived before.

    `names` are the model's `name`, the server's `key`, and `key_name`, the variable of the key. Raises `error` again
    if it is a bug.
    """
    causes = list(_causes(error))
    responses = [each.response for each in causes if isinstance(each, HTTPError) and hasattr(each, "response")]
    if responses:
        return ServerFault(_by_status(responses[0], **names))
    match error:
        case ServerError():
            text = str(error)
        case OverloadedError():
            text = STATUSES[503]
        case TextGenerationError():
            text = OWN_ERROR
        case HTTPError() | OSError():
            kinds = {ssl.SSLError: UNTRUSTED, socket.gaierror: UNKNOWN, Exception: UNREACHED}
            found = next(sentence for kind, sentence in kinds.items() for each in causes if isinstance(each, kind))
            text = CUT if begun else found
        case _ if isinstance(error, MALFORMED):
            text = GARBLED
        case _:
            raise error
    return ServerFault(text.format(when="in a moment", **names))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _by_status(response: Any, name: str, key_name: str, key: str) -> str:
    status = response.status_code
    if status in REFUSED:
        reason = _reason(response)
        reason = reason.replace(key, "…") if key else reason
        why = f': "{reason[:200]}"' if reason else ""
        return f"The server of {name} refuses this request{why}. Change the settings, or clear the chat."
    template = STATUSES.get(status, OTHER_STATUS)
    return template.format(name=name, key_name=key_name, status=status, when=_when(response.headers))


def _reason(response: Any) -> str:
    """The server's reason for a refusal, from one of the usual JSON fields; empty if there is none."""
    try:
        body = response.json()
    except (ValueError, RuntimeError):  # not JSON, or too long and therefore not read
        return ""
    while isinstance(body, Mapping):
        body = next((body[name] for name in ("error", "message", "detail") if body.get(name)), "")
    return " ".join(body.split()) if isinstance(body, str) else ""


def _when(headers: Mapping[str, str]) -> str:
    """When to retry, by the header Retry-After, which holds seconds or a date."""
    retry_after = headers.get("retry-after", "").strip()
    if retry_after.isdecimal():
        seconds = int(retry_after[:9])
    else:
        try:
            seconds = round(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
        except ValueError:
            return "in a moment"
    if seconds <= 0:
        return "in a moment"
    return f"in {seconds} seconds" if seconds < 120 else f"in {round(seconds / 60)} minutes"
