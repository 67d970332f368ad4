"""What every engine promises: one method that yields deltas; an answer is a fold over them."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from parley import strategies
from parley.errors import BadSetting
from parley.events import Delta
from parley.messages import Message
from parley.settings import Settings
from parley.strategies import Strategy
from parley.strategies.processors.watermark_detection import Detection


@dataclass(frozen=True)
class TurnRequest:
    """All that an engine needs for one turn. The strategy is looked up once, here."""

    messages: Sequence[Message]
    settings: Settings
    strategy: Strategy
    cancel: threading.Event  # set to end the work within one forward pass
    session: str = (
        ""  # turns of one session may profit from what the earlier ones have read; an empty one shares nothing
    )
    draft: "Engine | None" = None  # the engine of the draft model, where the strategy wants one

    @classmethod
    def of(
        cls,
        messages: Sequence[Message],
        settings: Settings,
        cancel: threading.Event,
        draft: "Engine | None" = None,
        session: str = "",
    ) -> "TurnRequest":
        """The request for these settings. Raises `BadSetting` for a strategy that does not exist."""
        strategy = strategies.find(settings.strategy)
        return cls(messages, settings, strategy, cancel, draft=draft, session=session)


class ClearableCache(Protocol):
    """What an engine keeps of conversations, as the pool of models sees it."""

    @property
    def bytes(self) -> int:
        """The memory that it holds, beyond that of the model."""
        ...

    def clear(self) -> None:
        """Gives up all that no turn is using."""


class Engine(ABC):
    """Turns messages into text. An engine without a model in this process holds no memory."""

    prefix_caches: Sequence[ClearableCache] = ()  # what it keeps of conversations, beside its own memory

    @property
    def memory_bytes(self) -> int:
        """The memory of its own, including what is only reserved."""
        return 0

    @property
    def unwritten_bytes(self) -> int:
        """The part of this memory that is reserved and was never written: the machine still counts it as free."""
        return 0

    @abstractmethod
    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """Yields the answer as it is made, at least a heartbeat every quarter of a second, and a last delta with the
        finish reason and the usage. Where the last of the messages is the assistant's, that is the beginning of the
        answer, and only what follows it is yielded.

        Setting `request.cancel`, or closing the iterator, ends the work within one forward pass; neither blocks until
        it has. Raises `ChatError` for what the reader can mend. Does not keep or change the messages.
        """

    def detect(self, text: str, settings: Settings) -> Detection:
        """How surely a text, as this engine's model writes it, bears the watermark of these settings.

        Raises `BadSetting` where there is no tokenizer here.
        """
        raise BadSetting("This model has no tokens to look at. Choose the model that wrote the text.")
