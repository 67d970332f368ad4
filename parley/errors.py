"""The errors that a reader sees: each is one sentence that says what to do next. Everything else is a bug."""


class ChatError(Exception):
    """A sentence for the reader, shown as it is, in the chat and to API callers."""


class BadSetting(ChatError):
    """A value that is missing, of the wrong type or out of bounds."""


class BadConversation(ChatError):
    """A history or message that cannot be sent to a model."""


class ModelUnavailable(ChatError):
    """A model that cannot be found, downloaded, loaded or trusted."""


class BadVariable(ModelUnavailable):
    """A variable of the environment with a wrong value; no model can be used until the owner corrects it."""


class ServerFault(ChatError):
    """A server that cannot be reached, will not answer, or breaks off."""
