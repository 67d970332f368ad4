"""The common part of both local engines: chat template, context window, decode loop in a thread, streamer."""

import functools
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from transformers import StoppingCriteriaList

from parley import strategies
from parley.engines import fork_gate, load_errors
from parley.engines.base import TurnRequest
from parley.engines.fingerprint import fingerprint, revision
from parley.engines.reading_engine import ReadingEngine
from parley.engines.token_rate import TokenRate
from parley.errors import BadSetting
from parley.events import (
    FLUSH,
    ContextUse,
    Delta,
    FinishReason,
    Origin,
    RunRecord,
    Usage,
)
from parley.generation import streaming
from parley.generation.generation_config import GenerationPlan, plan_generation
from parley.generation.loaded_model import LoadedModel
from parley.generation.prefix_cache import LeaseRequest, NoPrefixCache
from parley.generation.prompt import Prompt, context_use, render_prompt
from parley.generation.reasoning_parser import ReasoningParser
from parley.generation.reproduce import transformers_program
from parley.messages import Message
from parley.models.traits import tool_marks
from parley.settings import Settings
from parley.strategies.processors.answer_form import AnswerForm
from parley.strategies.processors.order import expression
from parley.strategies.processors.watermark_detection import Detection
from parley.strategies.processors.watermarks import Mark, detect
from parley.strategies.seed import fresh_seed

_generating = threading.Lock()  # for engines that run one turn at a time


def _renew_lock() -> None:
    """Gives a forked process a free lock: the turn that may hold this one goes on in the parent alone."""
    global _generating  # noqa: PLW0603  (a lock that another thread held cannot be released here)
    _generating = threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows does not have it, and does not fork
    os.register_at_fork(after_in_child=_renew_lock)


class LocalEngine(ReadingEngine):
    """Answers with one loaded model. At most `max_running` turns generate at the same time, and the others wait."""

    def __init__(self, loaded: LoadedModel, prefix_cache: NoPrefixCache, turn_seconds: float) -> None:
        super().__init__(loaded, turn_seconds)
        self.prefix_caches = (prefix_cache,)
        self.prefix_cache = prefix_cache
        self.token_rate = TokenRate()

    def context_use(self, messages: Sequence[Message], settings: Settings, session: str = "") -> ContextUse:
        """See `Engine.context_use`."""
        with fork_gate.closed():  # a worker of ZeroGPU must not inherit a tokenizer that is at work
            return context_use(self.loaded, messages, settings, self.prefix_cache.sequence(session))

    def stream(self, request: TurnRequest) -> Iterator[Delta]:
        """See `Engine.stream`; raises `BadConversation` for a message that does not fit the context window."""
        began = time.monotonic()
        seed = fresh_seed() if request.settings.seed is None else request.settings.seed
        request = replace(request, settings=request.settings.model_copy(update={"seed": seed}))
        settings = request.settings
        prefix_cache = self._prefixes(request)
        known = prefix_cache.sequence(request.session) or self._checked(request.generated)
        prompt = render_prompt(self.loaded, request.messages, settings, known)
        plan = self._plan(request, prompt)
        signal, prompt_ids = streaming.StopSignal(request.cancel, self.turn_seconds), prompt.ids[0].tolist()
        streamer = self._new_streamer(prompt_ids, settings, prompt, signal)
        cached_tokens = 0
        yield Delta(origin=self._origin(settings, seed, prompt_ids, tuple(request.given)))

        def work() -> None:
            nonlocal cached_tokens
            lock = _generating if self.max_running == 1 else None
            while lock and not lock.acquire(timeout=FLUSH):
                if signal.reason:
                    return
            try:
                generator = torch.Generator(self.loaded.model.device).manual_seed(seed)
                lease = LeaseRequest(
                    request.session, prompt_ids, plan.config["num_beams"], plan.max_length, lambda: streamer.ids
                )
                with (
                    self._running(),
                    torch.inference_mode(),
                    prefix_cache.acquire(lease) as leased,
                    plan.draws(generator),
                ):
                    cached_tokens = leased.cached_tokens
                    arguments = plan.arguments(streamer, generator, request.recorder)
                    self._generate(prompt, arguments | leased.arguments, signal, streamer)
            finally:
                if lock:
                    lock.release()

        yield from _remarks(prompt)
        yield from streaming.run(work, streamer, signal, request.cancel)
        end = functools.partial(self._end, signal, plan.config["max_new_tokens"], settings)
        finish = end(streamer.ids)
        yield Delta(
            finish=finish,
            usage=Usage(
                prompt_tokens=prompt.length,
                new_tokens=len(streamer.ids),
                time_to_first_token=streamer.first_token_after(began),
                seconds=time.monotonic() - began,
                drafted=streamer.drafted,
                accepted=streamer.accepted,
                cached_tokens=cached_tokens,
            ),
            seed=seed if request.strategy.samples else None,
            notices=self._missing_words(streamer.ids, request) if finish in ("end", "length", "context") else (),
            run_record=self._run_record(prompt, request, plan, seed),
            ids=tuple(streamer.ids),
            hypotheses=streamer.best(settings.num_return_sequences, end),
        )

    def _prefixes(self, request: TurnRequest) -> NoPrefixCache:
        """What the turn takes its prefix from."""
        if request.strategy.needs_full_prefill:
            return request.shared if request.shared and request.shared.keeps_states else NoPrefixCache()
        return request.shared or (self.prefix_cache if request.session else NoPrefixCache())

    def run_record(self, messages: Sequence[Message], settings: Settings, seed: int) -> RunRecord | None:
        """See `Engine.run_record`; None for strategies with a draft model, which may not be loaded."""
        settings = settings.model_copy(update={"seed": seed})
        request = TurnRequest.of(messages, settings, threading.Event())
        if request.strategy.drafts:
            return None
        prompt = render_prompt(self.loaded, messages, settings)
        return self._run_record(
            prompt, request, plan_generation(self.loaded, request.strategy, settings, prompt, None), seed
        )

    def _plan(self, request: TurnRequest, prompt: Prompt) -> GenerationPlan:
        given = self._checked(request.given)
        return plan_generation(
            self.loaded, request.strategy, request.settings, prompt, _draft_model(request), given=given
        )

    def _origin(self, settings: Settings, seed: int, prompt_ids: Sequence[int], given: tuple[int, ...]) -> Origin:
        values = settings.model_dump() | {"seed": seed}
        return Origin(values, tuple(prompt_ids), revision(self.loaded), self.fingerprint, given)

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `Engine.fingerprint`."""
        return fingerprint(self.loaded)

    def _running(self) -> AbstractContextManager[Any]:
        """Entered in the thread of a turn while it runs."""
        return nullcontext()

    def _new_streamer(
        self, prompt_ids: Sequence[int], settings: Settings, prompt: Prompt, signal: streaming.StopSignal
    ) -> streaming.AnswerStreamer:
        new_parser = functools.partial(
            ReasoningParser,
            settings.stop_strings,
            prompt.in_reasoning,
            prompt.continues,
            self.loaded.dialect,
            folds=not settings.plain,
        )
        return streaming.AnswerStreamer(
            self.loaded.tokenizer,
            prompt_ids,
            new_parser,
            signal,
            self.loaded.dialect,
            on_token=self.token_rate.count,
            marks=tool_marks(self.loaded.tokenizer.chat_template) if settings.tools else (),
        )

    @property
    def tokens_per_second(self) -> float:
        """See `Engine.tokens_per_second`."""
        return self.token_rate.per_second

    @property
    def memory_bytes(self) -> int:
        """The memory of the model."""
        return self.loaded.model.get_memory_footprint()

    @property
    @abstractmethod
    def _library(self) -> str:
        """The display name of the library that runs the model."""

    @property
    def _runs_on(self) -> str:
        """The library that runs the model, and the number formats it computes in."""
        return f"{self._library} {self.loaded.plan.numbers}"

    def detect(self, text: str, settings: Settings) -> Detection:
        """See `Engine.detect`."""
        strategy = strategies.find(settings.strategy)
        if not strategy.watermark:
            marks = " or ".join(row.name for row in strategies.STRATEGIES.values() if row.watermark)
            raise BadSetting(f"{strategy.label} makes no watermark. Choose {marks}.")
        ids = self.loaded.tokenizer.encode(text, add_special_tokens=False)
        return detect(strategy.mark(settings), ids, self.loaded.model.config.get_text_config().vocab_size)

    def _run_record(self, prompt: Prompt, request: TurnRequest, plan: GenerationPlan, seed: int) -> RunRecord:
        settings = request.settings
        config: dict[str, Any] = {"engine": self._runs_on}
        config |= {name: value for name, value in plan.config.items() if value is not None} | plan.options
        config |= {name: mark.to_dict() for name, mark in config.items() if isinstance(mark, Mark)}  # plain data
        config |= {"logits_processor": ", ".join(map(expression, plan.processors))} if plan.processors else {}
        removed = [each.mean_share for each in plan.processors if isinstance(each, AnswerForm)]
        config |= {"answer_form_removed": f"{removed[0]:.1%} of the probability at a token"} if removed else {}
        config |= {"order": " → ".join(plan.order)} if len(plan.order) > 1 else {}
        if request.strategy.name != settings.strategy:
            config["strategy"] = f"{request.strategy.name}, because the temperature is 0"
        program = transformers_program(self.loaded, prompt, settings, plan, seed)
        if self.loaded.plan.rounds:
            program = f"# {self._runs_on} answered. This program uses the stored weights: words may differ.\n{program}"
        names = ["model", "strategy", *request.strategy.uses]
        names += ["mode"] if settings.plain else self.loaded.reasoning.settings
        values = {name: getattr(settings, name) for name in names}
        values |= {"strategy": request.strategy.name} | ({"seed": seed} if "seed" in values else {})
        return RunRecord(self.loaded.tokenizer.decode(prompt.ids[0]), config, program, request.messages, values)

    def _missing_words(self, ids: Sequence[int], request: TurnRequest) -> tuple[str, ...]:
        """A sentence about the required words that the answer does not contain, because it became too long."""
        required = request.settings.forced_words if "force_words" in request.strategy.uses else ()
        text = self.loaded.tokenizer.decode(ids)
        missing = ", ".join(word for word in required if word not in text)
        return (f"There was no room for: {missing}. Raise max new tokens.",) if missing else ()

    def _end(self, signal: streaming.StopSignal, limit: int, settings: Settings, ids: Sequence[int]) -> FinishReason:
        """Why an answer of these tokens ended."""
        if signal.reason:
            return signal.reason
        if len(ids) < limit or (ids and ids[-1] in self.loaded.end_ids):
            return "end"
        return "length" if limit == settings.max_new_tokens else "context"

    def _generate(
        self,
        prompt: Prompt,
        arguments: dict[str, Any],
        signal: streaming.StopSignal,
        streamer: streaming.AnswerStreamer | None = None,
    ) -> None:
        device = self.loaded.model.device
        negative = {"negative_prompt_ids": prompt.negative.ids.to(device)} if prompt.negative else {}
        try:
            self.loaded.model.generate(
                prompt.ids.to(device),
                attention_mask=torch.ones_like(prompt.ids, device=device),
                stopping_criteria=StoppingCriteriaList([streaming.StopOnSignal(signal)]),
                **arguments,
                **negative,
            )
        except load_errors.NotFinite as error:
            raise load_errors.not_finite(self.loaded.spec) from error


def _draft_model(request: TurnRequest) -> LoadedModel | None:
    """The draft engine's model. The registry makes sure that a draft model is local."""
    assert request.draft is None or isinstance(request.draft, LocalEngine)
    return request.draft.loaded if request.draft else None


def _remarks(prompt: Prompt) -> Iterator[Delta]:
    """What a visitor has to know of the prompt."""
    if prompt.dropped:
        turns = "turn was" if prompt.dropped == 1 else f"{prompt.dropped} turns were"
        yield Delta(notices=(f"The oldest {turns} left out: the conversation is longer than the model can read.",))
    if prompt.shortened:
        yield Delta(notices=("The chat template of this model left out a part of an earlier answer.",))
