"""The events of an answer: an engine yields deltas, and the sum of the deltas is the answer."""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from parley.messages import Message

SHOWN = 10  # candidates of a token, unless more are asked for
FLUSH = 0.05  # seconds: the shortest time between two deltas with text
MIN_DECODE_SECONDS = 0.01  # text that arrives in less time was buffered, and its speed says nothing about decoding
HEARTBEAT = 0.25  # seconds: the longest time between two deltas, so that a consumer can stop the answer

# An end token, a stop string, max_new_tokens, the context window, the time limit, or the visitor.
FinishReason = Literal["end", "stop string", "length", "context", "time", "stopped"]

Report = Callable[[str], None]  # takes a short sentence about progress ("Downloading … 34 %")
STATUSES = {  # what an answer shows before its first text, and remarks on what runs together
    "looking": "Looking for {model}",
    "downloading": "Downloading {model}: {share} of {size}",
    "loading": "Loading {model}",
    "loaded": "Loading {model}: {share}",
    "early": "Preparing the first {layers} layers: {share}",
    "reading": "Reading…",
    "gpu": "Waiting for a GPU",
    "one_by_one": "{first} and {second} do not fit into memory together: they answer in this order.",
    "seconds_left": "You had {count} s of GPU time left.",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """The number of tokens and the time of an answer. Times are in seconds since the engine began the turn."""

    prompt_tokens: int
    new_tokens: int
    time_to_first_token: float | None  # None: nothing was generated
    seconds: float
    drafted: int = 0  # draft tokens
    accepted: int = 0  # draft tokens that the model accepted
    cached_tokens: int = 0  # tokens of the prompt that came from the cache of an earlier turn
    unit: str = "token"  # "chunk" where a server reports no tokens: `new_tokens` counts chunks, `prompt_tokens` is 0
    others: int = 0  # how many other turns of this model ran when it ended
    total_tokens_per_second: float = 0.0  # of all of them and this one together
    gpu_seconds: int | None = None  # the GPU time requested from ZeroGPU; None elsewhere

    @property
    def tokens_per_second(self) -> float | None:
        """The decoding speed after the first token; None where the answer is too short to measure it."""
        if (
            self.time_to_first_token is None
            or self.new_tokens < 2
            or self.seconds < self.time_to_first_token + MIN_DECODE_SECONDS
        ):
            return None
        return (self.new_tokens - 1) / (self.seconds - self.time_to_first_token)


@dataclass(frozen=True, slots=True)
class ContextUse:
    """How much of the context window a conversation takes, counted before it is sent."""

    tokens: int  # of all of it
    context: int  # tokens that the model reads and writes together
    limit: int  # tokens that it reads; the rest is kept for the answer
    dropped: int  # how many of the oldest turns will not be read


@dataclass(frozen=True, slots=True)
class Beam:
    """One hypothesis of a beam search."""

    text: str
    score: float  # log probability in nats, divided by the length to the power of the length penalty
    finished: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that could have stood in the place of another. Log probabilities are in nats."""

    id: int
    text: str
    logprob: float  # by the model alone
    after: float  # after the processors of the strategy; minus infinity where one of them removed it
    removed_by: str  # the setting whose processor removed it; empty where it was kept
    quotient: float | None  # its probability divided by its exponential noise: the largest is drawn; None: no draw
    noise: float | None = None
    early: float | None = None  # DoLa: log probability by the early layer
    similarity: float | None = None  # contrastive search: the largest one to an earlier token
    value: float | None = None  # contrastive search: what it is chosen by


@dataclass(frozen=True, slots=True)
class TokenScore:
    """Why a token was chosen, see `generation.scoring`. Log probabilities and the entropy are in nats."""

    id: int
    text: str  # what it completes; empty where a character is not complete
    logprob: float  # by the model alone; not a number for the first token of all, before which there is nothing
    rank: int  # 1 for the likeliest
    after: float  # after the processors of the strategy
    after_rank: int
    entropy: float  # of the model's distribution
    candidates: tuple[Candidate, ...]  # the likeliest first
    control: bool = False  # a token of the chat template, which nobody can type
    early_layer: int | None = None  # DoLa: the layer that the last one was compared with
    form_removed: float | None = None  # the share of the probability that the answer form took away; None: no form
    drafted: bool | None = None  # whether it was a draft token that was accepted; None: there were no drafts
    rivals: tuple["BeamNode", ...] = ()  # the hypotheses at this token, best first, in a beam search


@dataclass(frozen=True, slots=True)
class BeamNode:
    """A hypothesis of a beam search at one step: one more token, and what it goes on from."""

    id: int
    text: str
    parent: int  # the index of the hypothesis, among those of the step before, that it continues; -1 at the first
    score: float  # see `Beam`
    finished: bool
    group: int  # of a diverse beam search
    chosen: bool  # whether it became a part of the answer


@dataclass(frozen=True, slots=True)
class SpeculativePass:
    """A pass of the model that checks draft tokens, and adds one token of its own."""

    drafts: tuple[str, ...]  # their texts
    accepted: int  # how many of them, from the first
    token: str  # the token of its own; empty where the answer ended before


@dataclass(frozen=True, slots=True)
class Choices:
    """How an answer was chosen, token by token, and what can be seen of its prompt."""

    prompt: tuple[TokenScore, ...]  # by the model alone
    answer: tuple[TokenScore, ...]
    chain: tuple[str, ...] = ()  # the settings whose processors ran, in their order
    beams: tuple[tuple[BeamNode, ...], ...] = ()  # of each step of a beam search
    passes: tuple[SpeculativePass, ...] = ()  # of speculative decoding
    rounding: float | None = None  # the most by which rounded weights moved a probability where it was measured
    notes: tuple[str, ...] = ()  # what a reader has to know of these


@dataclass(frozen=True, slots=True)
class NextToken:
    """What follows the tokens of an answer so far."""

    ids: tuple[int, ...]  # so far
    pieces: tuple[str, ...]  # their texts
    score: TokenScore  # of the token that the strategy chooses
    kept: int  # how many tokens the settings leave
    vocabulary: int  # of so many
    chain: tuple[str, ...]  # the settings whose processors ran, in their order
    guess: TokenScore | None  # of the first token of a text that somebody guessed
    ended: bool  # the last token ends an answer


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What exactly ran, for people who want to see it or to run it again."""

    prompt: str  # as the chat template rendered it, with control tokens; empty where a server renders it
    config: Mapping[str, Any]  # the generation config, or the parameters of the request
    program: str  # Python source that gives the same text with `library`; empty where there is none
    messages: Sequence[Message]  # the conversation; with `values` it gives the same text again
    values: Mapping[str, Any]  # the settings
    library: str = "transformers"
    request: str = ""  # the JSON that was sent to a server


@dataclass(frozen=True, slots=True)
class Origin:
    """What an answer is made from, known before its first token: enough to make it again after it broke off."""

    settings: Mapping[str, Any]  # all of them, with the seed that was used
    prompt_ids: tuple[int, ...]  # the tokens of the prompt; empty where a server has them
    revision: str  # of the model; empty where it is not known
    fingerprint: str  # see `engines.fingerprint`
    given: tuple[int, ...] = ()  # tokens with which it had to begin


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new since the last delta. An empty delta is a heartbeat. The last one has a finish reason.

    Text and thought are appended to the answer so far. With `replaces` they replace it, because the best hypothesis of
    a beam search can change.
    """

    text: str = ""
    thought: str = ""
    replaces: bool = False
    beams: tuple[Beam, ...] = ()  # the hypotheses of a beam search, best first
    status: str = ""  # progress before the answer begins; shown until the next status or text
    notices: tuple[str, ...] = ()  # remarks on this answer for the visitor
    finish: FinishReason | None = None
    usage: Usage | None = None
    seed: int | None = None  # the seed that was used
    run_record: RunRecord | None = None
    origin: Origin | None = None
    ids: tuple[int, ...] = ()  # the generated tokens, with the last delta
    hypotheses: tuple["Answer", ...] = ()  # of one search, best first, this one included, where several are asked for


@dataclass(frozen=True, slots=True)
class Figures:
    """What is measured of a finished answer beside its speed. `figures | later` has what either of them knows."""

    words: int | None = None
    distinct_2: float | None = None  # see `serving.text_measures`; None where the text is too short
    repeated_4grams: float | None = None
    logprob: float | None = None  # the mean of its tokens in nats, by the model alone; None where that is not known
    bits_per_byte: float | None = None  # of its text, by the one model that scores all columns

    def __or__(self, later: "Figures") -> "Figures":
        known = {each.name: getattr(later, each.name) for each in fields(later)}
        return replace(self, **{name: value for name, value in known.items() if value is not None})


@dataclass(frozen=True, slots=True)
class ColumnEvent:
    """What is new in a comparison. An empty one is a heartbeat."""

    column: int | None = None  # None: it concerns all columns
    delta: Delta | None = None  # of the answer in the column
    error: str = ""  # a sentence; nothing follows in this column
    code: str = ""  # of the error, see `errors.CODES`
    figures: Figures | None = None  # once the answer is finished
    notice: str = ""
    scored_by: str = ""  # the label of the model that gives the bits per byte
    gpu_seconds: int | None = None  # requested from ZeroGPU for all columns together


@dataclass(frozen=True, slots=True)
class Answer(Delta):
    """The answer so far: `answer + delta` is the answer after that delta."""

    @classmethod
    def of(cls, deltas: Iterable[Delta]) -> "Answer":
        """The sum of the deltas."""
        return functools.reduce(operator.add, deltas, cls())

    def __add__(self, delta: Delta) -> "Answer":
        has_text = delta.text or delta.thought
        return replace(
            self,
            text=delta.text if delta.replaces else self.text + delta.text,
            thought=delta.thought if delta.replaces else self.thought + delta.thought,
            beams=delta.beams or self.beams,
            status=delta.status or ("" if has_text else self.status),
            notices=self.notices + delta.notices,
            finish=delta.finish or self.finish,
            usage=delta.usage or self.usage,
            seed=self.seed if delta.seed is None else delta.seed,
            run_record=delta.run_record or self.run_record,
            origin=delta.origin or self.origin,
            ids=delta.ids or self.ids,
            hypotheses=delta.hypotheses or self.hypotheses,
        )
