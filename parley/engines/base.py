"""The interface of all engines: one method that yields deltas. An answer is the sum of its deltas."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from parley.errors import BadSetting, NotSupported
from parley.events import SHOWN, Choices, ContextUse, Delta, NextToken, RunRecord, TokenScore
from parley.messages import Message
from parley.settings import Settings
from parley.strategies import Strategy
from parley.strategies.processors.watermark_detection import Detection

ELSEWHERE = "This model runs elsewhere, where its tokens are not seen. Choose a model that runs here."

if TYPE_CHECKING:  # importing torch takes seconds; the page must be served before that
    from parley.generation.prefix_cache import NoPrefixCache


@dataclass(frozen=True)
class TurnRequest:
    """The input of an engine for one turn. `of` looks up the strategy, so that it happens once per turn."""

    messages: Sequence[Message]
    settings: Settings
    strategy: Strategy
    cancel: threading.Event  # set to end the work within one forward pass
    session: str = ""  # turns of one session share a prefix cache; an empty session shares nothing
    draft: "Engine | None" = None  # the engine of the draft model, if the strategy uses one
    generated: Sequence[int] = ()  # tokens of the conversation as they were generated, where no cache has them
    given: Sequence[int] = ()  # tokens with which the answer has to begin
    recorder: Callable[..., None] | None = None  # takes what the decoder tells by `Strategy.record`
    shared: "NoPrefixCache | None" = None  # the prompts of the comparison that the turn is a column of

    @classmethod
    def of(
        cls,
        messages: Sequence[Message],
        settings: Settings,
        cancel: threading.Event,
        draft: "Engine | None" = None,
        session: str = "",
        *,
        generated: Sequence[int] = (),
        given: Sequence[int] = (),
        shared: "NoPrefixCache | None" = None,
    ) -> "TurnRequest":
        """Builds the request for these settings. Raises `BadSetting` for a strategy that does not exist."""
        strategy = settings.effective_strategy
        return cls(messages, settings, strategy, cancel, session, draft, generated, given, shared=shared)


class ClearableCache(Protocol):
    """The prefix cache of an engine, as the model pool sees it."""

    @property
    def bytes(self) -> int:
        """The memory that the cache holds, in addition to the memory of the model."""
        ...

    def clear(self) -> None:
        """Frees everything that no turn is using."""


class Engine(ABC):
    """Turns messages into text. An engine without a model in this process holds no memory."""

    prefix_caches: Sequence[ClearableCache] = ()  # not counted in `memory_bytes`
    max_running = 1  # how many turns may run at the same time, where they compute in this process

    @property
    def tokens_per_second(self) -> float:
        """The tokens that all its turns in this process generate together, lately."""
        return 0.0

    def run_record(self, messages: Sequence[Message], settings: Settings, seed: int) -> RunRecord | None:
        """What ran for an earlier answer, made anew; None where the engine cannot say it. Raises `ChatError`."""
        return None

    @property
    def fingerprint(self) -> str:
        """Of what computes its answers, see `engines.fingerprint`; empty where it is not known."""
        return ""

    @property
    def memory_bytes(self) -> int:
        """The memory of the engine, reserved memory included."""
        return 0

    @property
    def unwritten_bytes(self) -> int:
        """The part of this memory that is reserved but was never written. The system still counts it as free."""
        return 0

    def context_use(self, messages: Sequence[Message], settings: Settings, session: str = "") -> ContextUse | None:
        """How much of the context window these messages would take; None where this process has no tokenizer.

        Raises `ChatError` for messages that cannot be answered.
        """
        return None

    def scores(self, request: TurnRequest, answer: str | Sequence[int], shown: int = SHOWN) -> list[TokenScore]:
        """Why each token of this answer, or text, was chosen after the messages of the request, of `shown` candidates.

        It is read once more, see `generation.scoring`. With the seed of the settings the draws are those of the
        answer. Raises `ChatError`.
        """
        raise NotSupported("This model runs elsewhere, where its choices are not seen. Choose a model that runs here.")

    def choices(self, request: TurnRequest, answer: str | Sequence[int], *, prompt: bool = True) -> Choices:
        """The same with what the model says of the `prompt`, and how a search came to this answer of exact tokens.

        A search runs again. Without messages the answer is a text that is only scored. Raises `ChatError`.
        """
        raise NotSupported("This model runs elsewhere, where its choices are not seen. Choose a model that runs here.")

    def next_token(self, request: TurnRequest, forced: str = "", guess: str = "") -> NextToken:
        """What follows the tokens that are given, and a text that is forced; how likely a guess is.

        Raises `ChatError`.
        """
        raise NotSupported("This model runs elsewhere, where its choices are not seen. Choose a model that runs here.")

    def logprobs(self, request: TurnRequest, answer: str | Sequence[int]) -> list[float]:
        """The log probability in nats of each token of this answer, or text, by the model alone; see `scores`.

        Empty where it was stopped.
        """
        return [each.logprob for each in self.scores(request, answer)]

    def shared_prompts(self, session: str, needs_states: bool = False) -> "NoPrefixCache | None":
        """For the turns of one comparison, so that a prompt that several of them have is read once.

        They begin with what is cached of the session. `needs_states` says that a strategy compares the states of all
        tokens. None where nothing is read in this process.
        """
        return None

    def tokenize(
        self, settings: Settings, text: str, messages: Sequence[Message] = (), *, special: bool = True
    ) -> tuple[list[int], int]:
        """The tokens of a text, with the `special` tokens that begin one, or in the chat template those of messages.

        And how many tokens the model reads. Raises `ChatError`.
        """
        raise NotSupported(ELSEWHERE)

    def text_scores(self, request: TurnRequest, text: str | Sequence[int], shown: int = SHOWN) -> list[TokenScore]:
        """What the model alone says of each token of a text, or of these tokens, after those before it.

        Nothing is said of the first one. Raises `ChatError`.
        """
        raise NotSupported(ELSEWHERE)

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each of these tokens stands for, wherever it stands."""
        raise NotSupported(ELSEWHERE)

    @abstractmethod
    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """Yields the answer while it is generated. A delta (or an empty one, a heartbeat) comes at least every 0.25
        seconds. The last delta has the finish reason and the usage. If the last message is the assistant's, it is the
        beginning of the answer, and only the continuation is yielded.

        Setting `request.cancel`, or closing the iterator, ends the work within one forward pass; neither waits for
        that. Raises `ChatError` for errors that the visitor can correct. Does not keep or change the messages.
        """

    def detect(self, text: str, settings: Settings) -> Detection:
        """Scores a text, tokenized for this engine's model, for the watermark of these settings.

        Raises `BadSetting` if the engine has no tokenizer.
        """
        raise BadSetting("This model has no tokens to look at. Choose the model that wrote the text.")
