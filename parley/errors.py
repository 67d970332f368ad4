"""The errors that a visitor sees. Each is a sentence that says what to do next. Any other exception is a bug."""

import difflib
from collections.abc import Iterable


def instead_of(name: str, names: Iterable[str]) -> str:
    """A question with the nearest of these names, and a space before it; empty where none is near."""
    near = difflib.get_close_matches(name[:100], list(names), 1, 0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


class ChatError(Exception):
    """An error whose text is shown unchanged to visitors in the chat and to API callers."""


class BadSetting(ChatError):
    """A setting that is missing, has the wrong type or is out of bounds."""


class BadConversation(ChatError):
    """A conversation that cannot be sent to a model."""


class ModelUnavailable(ChatError):
    """A model that cannot be found, downloaded, loaded or trusted."""


class NoRoom(ModelUnavailable):
    """A model for which there is not enough memory at the moment."""


class BadVariable(ModelUnavailable):
    """An environment variable with a wrong value. No model can be used until the owner corrects it."""


class ServerFault(ChatError):
    """A server that cannot be reached, refuses a request, or breaks off an answer."""
