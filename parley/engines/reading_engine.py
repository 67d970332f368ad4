"""The part of both local engines that reads answers again: why their tokens were chosen, and what may follow."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig

from parley import strategies
from parley.engines import fork_gate
from parley.engines.base import Engine, TurnRequest
from parley.errors import BadConversation, TooLong
from parley.events import SHOWN, Answer, Choices, NextToken, TokenScore
from parley.generation import streaming
from parley.generation.generation_config import plan_generation
from parley.generation.loaded_model import LoadedModel
from parley.generation.prefix_cache import LeaseRequest, NoPrefixCache
from parley.generation.prompt import Prompt, render_prompt, rendered_ids
from parley.generation.scoring.next_token import NextTokens
from parley.generation.scoring.reader import Reader, Run, whole_text
from parley.generation.scoring.recording import RECORDERS, TermRecorder
from parley.messages import Message
from parley.settings import Settings
from parley.strategies.decoders.teacher_forcing import teacher_forcing
from parley.strategies.token_bytes import own_bytes

DIFFERS = "The search came to other words this time, so that how it came to these is not shown."


class ReadingEngine(Engine):
    """Reads answers of one loaded model again."""

    def __init__(self, loaded: LoadedModel, turn_seconds: float) -> None:
        self.loaded = loaded
        self.turn_seconds = turn_seconds
        self._next = NextTokens(loaded)

    def scores(self, request: TurnRequest, answer: str | Sequence[int], shown: int = SHOWN) -> list[TokenScore]:
        """See `Engine.scores`; raises `BadConversation` for an answer that has no token, or too many."""
        prompt, ids = self._given(request, answer)
        return self._reader(request).scores(prompt, ids, request.settings, request.strategy, shown=shown)[0]

    def choices(self, request: TurnRequest, answer: str | Sequence[int], *, prompt: bool = True) -> Choices:
        """See `Engine.choices`; raises `BadConversation` for a text that has too few tokens, or too many."""
        reader, settings, strategy = self._reader(request), request.settings, request.strategy
        if not request.messages:
            return reader.choices(whole_text(self.loaded, str(answer)), (), settings, strategy)
        before, ids = self._given(request, answer)
        new = None if isinstance(answer, str) else RECORDERS.get(strategy.record)
        recorder = new(self.loaded.tokenizer) if new and (settings.seed is not None or not strategy.samples) else None
        same = recorder and self._repeat(replace(request, recorder=recorder), ids)
        tried = recorder.tried if isinstance(recorder, TermRecorder) and same else ()
        choices = reader.choices(before, ids, settings, strategy, tried=tried, with_prompt=prompt)
        if recorder is None:
            return choices
        return recorder.told(choices, ids) if same else replace(choices, notes=(*choices.notes, DIFFERS))

    def _repeat(self, request: TurnRequest, ids: Sequence[int]) -> bool:
        """Runs a search again. Whether it came to these tokens, or to more that begin with them."""
        if request.strategy.record != "on_beams":  # which look ahead
            limit = request.settings.model_copy(update={"max_new_tokens": len(ids)})
            request = replace(request, settings=limit)
        return Answer.of(self.stream(request)).ids[: len(ids)] == tuple(ids)

    def next_token(self, request: TurnRequest, forced: str = "", guess: str = "") -> NextToken:
        """See `Engine.next_token`."""
        prompt = render_prompt(self.loaded, request.messages, request.settings, self._checked(request.generated))
        ids = self._next.ids(self._checked(request.given), forced)
        chosen = None
        if request.strategy.record == "on_candidates":  # its decoder looks at more than probabilities
            limit = request.settings.model_copy(update={"max_new_tokens": len(ids) + 1})
            chosen = Answer.of(self.stream(replace(request, settings=limit, given=ids))).ids[-1]
        return self._next.look(self._read(request), prompt, ids, request.settings, chosen=chosen, guess=guess)

    def _reader(self, request: TurnRequest) -> Reader:
        return Reader(self.loaded, self._read(request))

    def _read(self, request: TurnRequest) -> Run:
        def run(prompt: Prompt, arguments: dict[str, Any]) -> None:
            signal = streaming.StopSignal(request.cancel, self.turn_seconds)
            with streaming.stops(signal), self._running(), torch.inference_mode():
                self._generate(prompt, arguments, signal)

        return run

    def logprobs(self, request: TurnRequest, answer: str | Sequence[int]) -> list[float]:
        """See `Engine.logprobs`. No processor runs, so it takes a fraction of the time of `scores`."""
        prompt, ids = self._given(request, answer)
        plain, made = replace(prompt, negative=None), list[float]()
        greedy = plan_generation(self.loaded, strategies.find("greedy"), Settings.check({}), plain)
        arguments = {
            "generation_config": GenerationConfig(**greedy.config),
            "custom_generate": teacher_forcing,
            "given": ids,
            "on_step": lambda step: made.append(float(step.logits.log_softmax(-1)[step.token])),
        }
        prefix_cache = request.shared or NoPrefixCache()
        lease = LeaseRequest("", prompt.ids[0].tolist(), 1, prompt.length + len(ids), list)
        signal = streaming.StopSignal(request.cancel, self.turn_seconds)
        with (
            suppress(streaming.Interrupted),
            streaming.stops(signal),
            self._running(),
            torch.inference_mode(),
            prefix_cache.acquire(lease) as leased,
        ):
            self._generate(plain, arguments | leased.arguments, signal)
        return made if len(made) == len(ids) else []

    def _given(self, request: TurnRequest, answer: str | Sequence[int]) -> tuple[Prompt, Sequence[int]]:
        """The prompt, and the tokens of the answer. Raises `BadConversation` where these are none, or too many."""
        tokenizer = self.loaded.tokenizer
        ids = tokenizer.encode(answer, add_special_tokens=False) if isinstance(answer, str) else self._checked(answer)
        prompt = render_prompt(self.loaded, request.messages, request.settings, self._checked(request.generated))
        room = self.loaded.context - prompt.length
        if not 0 < len(ids) <= room:
            raise BadConversation(
                f"The answer has {len(ids)} tokens. {self.loaded.spec.label} can look at 1 to {room} after this "
                "conversation. Give another one."
            )
        return prompt, ids

    def _checked(self, ids: Sequence[int]) -> Sequence[int]:
        """The same tokens. Raises `BadConversation` for one that the model does not have, because they may come from
        anywhere.
        """
        if all(0 <= each < len(self.loaded.tokenizer) for each in ids):
            return ids
        raise BadConversation(
            f"The stored answer has tokens that {self.loaded.spec.label} does not have. Ask the question again."
        )

    def tokenize(
        self, settings: Settings, text: str, messages: Sequence[Message] = (), *, special: bool = True
    ) -> tuple[list[int], int]:
        """See `Engine.tokenize`."""
        with fork_gate.closed():  # a worker of ZeroGPU must not inherit a tokenizer that is at work
            ids = rendered_ids(self.loaded, messages, settings) if messages else None
            return ids or self.loaded.tokenizer.encode(text, add_special_tokens=special), self.loaded.context

    def text_scores(self, request: TurnRequest, text: str | Sequence[int], shown: int = SHOWN) -> list[TokenScore]:
        """See `Engine.text_scores`; raises `TooLong` for a text that is longer than the model reads."""
        ids = self.loaded.tokenizer.encode(text) if isinstance(text, str) else list(self._checked(text))
        if not 0 < len(ids) <= self.loaded.context:
            label, context = self.loaded.spec.label, self.loaded.context
            raise TooLong(f"This text has {len(ids)} tokens. {label} reads 1 to {context}. Shorten it.")
        return self._reader(request).text_scores(ids, shown)

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """See `Engine.token_bytes`."""
        return [own_bytes(self.loaded.tokenizer, each) for each in self._checked(ids)]

    @abstractmethod
    def _running(self) -> AbstractContextManager[Any]:
        """Entered in the thread of a turn while it runs."""

    @abstractmethod
    def _generate(
        self,
        prompt: Prompt,
        arguments: dict[str, Any],
        signal: streaming.StopSignal,
        streamer: streaming.AnswerStreamer | None = None,
    ) -> None:
        """Calls `generate` with these arguments."""
