"""The errors that a visitor sees. Each is a sentence that says what to do next. Any other exception is a bug.

For programs each has a code, which is a row of `CODES`.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Code:
    """One kind of refusal, for programs."""

    status: int  # of HTTP
    meaning: str


CODES: dict[str, Code] = {
    "bad_request": Code(400, "The request does not have the form that the endpoint takes."),
    "bad_setting": Code(400, "A setting is unknown, has a wrong type, is out of bounds, or does not suit the model."),
    "bad_messages": Code(400, "The conversation cannot be sent to a model."),
    "too_long": Code(400, "The prompt is longer than the model can read, or a text is longer than the app takes."),
    "not_supported": Code(400, "The model cannot do this, or nothing here can do it yet."),
    "no_key": Code(401, "The owner has set an API key, and the request has none, or another one."),
    "no_such_model": Code(404, "There is no model of this name here."),
    "not_found": Code(404, "There is no endpoint of this name."),
    "too_large": Code(413, "The body of the request has too many bytes."),
    "busy": Code(429, "Too many turns run or wait. Come back after retry_seconds."),
    "too_many": Code(429, "The caller, or their address, has too many turns that run or wait."),
    "too_often": Code(429, "The caller asked too often within a minute."),
    "quota": Code(429, "The caller's GPU time on ZeroGPU is used up, or no GPU is free. Try again later."),
    "cancelled": Code(499, "The caller ended the turn before it began."),
    "internal": Code(500, "A bug. It was logged."),
    "server_fault": Code(502, "The server that runs a remote model cannot be reached, or fails."),
    "model_unavailable": Code(503, "The model cannot be downloaded, loaded or trusted, or has no memory now."),
    "stopping": Code(503, "The app is being restarted."),
    "misconfigured": Code(503, "A variable of the owner has a wrong value."),
}


def instead_of(name: str, names: Iterable[str]) -> str:
    """A question with the nearest of these names, and a space before it; empty where none is near."""
    near = difflib.get_close_matches(name[:100], list(names), 1, 0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


class ChatError(Exception):
    """An error whose text is shown unchanged to visitors in the chat and to API callers.

    For programs it may name the parameter that is wrong, and what would be valid there, as plain data.
    """

    code = "bad_request"

    def __init__(self, sentence: str, *, name: str = "", valid: Any = None, code: str = "") -> None:
        super().__init__(sentence)
        self.name, self.valid = name, valid
        self.code = code or self.code

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return CODES[self.code].status

    def as_data(self) -> dict[str, Any]:
        """The error for a program, in the form of the OpenAI API, with what would be valid."""
        return error_data(self.code, str(self), self.name, self.valid)


def error_data(code: str, sentence: str, name: str = "", valid: Any = None) -> dict[str, Any]:
    """An error of this code for a program, in the form of the OpenAI API, with what would be valid."""
    kind = "invalid_request_error" if CODES[code].status < 429 else "server_error"
    kind = "rate_limit_error" if CODES[code].status == 429 else kind
    return {"message": sentence, "type": kind, "code": code, "param": name or None, "valid": valid}


class BadSetting(ChatError):
    """A setting that is missing, has the wrong type or is out of bounds."""

    code = "bad_setting"


class NotSupported(BadSetting):
    """Something that this model, or this app, cannot do."""

    code = "not_supported"


class BadConversation(ChatError):
    """A conversation that cannot be sent to a model."""

    code = "bad_messages"


class TooLong(BadConversation):
    """A text, or a conversation, that is longer than may be."""

    code = "too_long"


class ModelUnavailable(ChatError):
    """A model that cannot be found, downloaded, loaded or trusted."""

    code = "model_unavailable"


class NoSuchModel(ModelUnavailable):
    """A name that no model has here."""

    code = "no_such_model"


class NoRoom(ModelUnavailable):
    """A model for which there is not enough memory at the moment."""


class BadVariable(ModelUnavailable):
    """An environment variable with a wrong value. No model can be used until the owner corrects it."""

    code = "misconfigured"


class ServerFault(ChatError):
    """A server that cannot be reached, refuses a request, or breaks off an answer."""

    code = "server_fault"


class TurnRefused(ChatError):
    """A turn for which there is no place now. The code is busy, too_many, too_often or stopping."""

    def __init__(self, sentence: str, code: str, seconds: int) -> None:
        super().__init__(sentence, code=code)
        self.retry_seconds = seconds  # after which to come back

    def as_data(self) -> dict[str, Any]:
        """The error for a program, with the time to come back."""
        return super().as_data() | {"retry_seconds": self.retry_seconds}


class BadKey(ChatError):
    """A request without the owner's API key."""

    code = "no_key"
