"""What travels up from an engine to the reader: deltas, and the answer that is a fold over them."""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from parley.messages import Message

FLUSH = 0.05  # seconds: pieces reach the reader at most this often
MEASURABLE = 0.01  # seconds: what comes within them was lying somewhere, and says nothing of how fast it is made
HEARTBEAT = 0.25  # seconds: at least this often the reader gets something, so that it can be closed

# Its own end, a stop string, max_new_tokens, the context window, the wall clock, or the reader.
FinishReason = Literal["end", "stop string", "length", "context", "time", "stopped"]

Report = Callable[[str], None]  # takes a short sentence about progress ("Downloading … 34 %")


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost. Times are in seconds since the engine took the turn up."""

    prompt_tokens: int
    new_tokens: int
    time_to_first_token: float | None  # None: nothing was generated
    seconds: float
    drafted: int = 0  # tokens that were guessed ahead, and how many of them the model accepted
    accepted: int = 0
    cached_tokens: int = 0  # of the prompt: they were known from an earlier turn and not read again
    unit: str = "token"  # "chunk" where a server tells no tokens: `new_tokens` counts what came in, the prompt is 0
    gpu_seconds: int | None = None  # what ZeroGPU was asked for; None elsewhere

    @property
    def tokens_per_second(self) -> float | None:
        """The speed of decoding after the first token; None where there is too little to measure."""
        if (
            self.time_to_first_token is None
            or self.new_tokens < 2
            or self.seconds < self.time_to_first_token + MEASURABLE
        ):
            return None
        return (self.new_tokens - 1) / (self.seconds - self.time_to_first_token)


@dataclass(frozen=True, slots=True)
class Beam:
    """One hypothesis of a beam search."""

    text: str
    score: float  # log probability in nats, divided by the length to the power of the length penalty
    finished: bool


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What exactly was run, for whoever wants to see it or to run it again."""

    prompt: str  # as the chat template rendered it, control tokens and all; empty where a server does that
    config: Mapping[str, Any]  # what decided how each token was chosen
    program: str  # Python that gives the same text with `library`; empty where there is none
    messages: Sequence[Message]  # what was asked, and by which settings: together they ask for the same text again
    values: Mapping[str, Any]
    library: str = "transformers"
    request: str = ""  # the JSON that a server was sent


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new since the last one. A delta with nothing in it is a heartbeat. The last one has a finish reason.

    Its text and thought are to be added to those before; with `replaces` they are the whole answer so far, for the
    best hypothesis of a beam search may change its mind.
    """

    text: str = ""
    thought: str = ""
    replaces: bool = False
    beams: tuple[Beam, ...] = ()  # what a beam search considers now, the best first
    status: str = ""  # what is happening now, shown until something else is
    notices: tuple[str, ...] = ()  # what the reader should know of this answer
    finish: FinishReason | None = None
    usage: Usage | None = None
    seed: int | None = None  # the one that was used
    run_record: RunRecord | None = None


@dataclass(frozen=True, slots=True)
class Answer(Delta):
    """Everything so far: `answer + delta` is the answer after that delta."""

    @classmethod
    def of(cls, deltas: Iterable[Delta]) -> "Answer":
        """The whole answer."""
        return functools.reduce(operator.add, deltas, cls())

    def __add__(self, delta: Delta) -> "Answer":
        said = delta.text or delta.thought
        return replace(
            self,
            text=delta.text if delta.replaces else self.text + delta.text,
            thought=delta.thought if delta.replaces else self.thought + delta.thought,
            beams=delta.beams or self.beams,
            status=delta.status or ("" if said else self.status),
            notices=self.notices + delta.notices,
            finish=delta.finish or self.finish,
            usage=delta.usage or self.usage,
            seed=self.seed if delta.seed is None else delta.seed,
            run_record=delta.run_record or self.run_record,
        )
