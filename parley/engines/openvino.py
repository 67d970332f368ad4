"""The fast engine on x86 CPUs: openvino-genai on an exported int8 model, for all that it defines as transformers does.

What it would do in another way, or not show while it is made, the torch model does: `paired` decides between the two.
It needs openvino-genai.
"""

import functools
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
import torch

from parley import strategies, streaming
from parley.answer_text import AnswerText
from parley.engines.base import Delta, FinishReason, Ran, Usage
from parley.engines.loading import Loaded
from parley.engines.prompt import Prompt, fit
from parley.messages import Message
from parley.settings import Settings

NAME = "OpenVINO int8"
PREFILL = 256  # tokens that are read between two looks at the brake
# Keys and values of one byte: of the other types this library has only a slow program for CPUs without bf16 units.
PROPERTIES = {"KV_CACHE_PRECISION": "u8", "INFERENCE_PRECISION_HINT": "f32"}

STRATEGIES = ("greedy", "sampling")
# Defined alike, or ours in both engines.
SHARED = {"temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens", "stop", "seed"}
# The value at which a setting changes nothing; any other is for the torch model.
NEUTRAL: Mapping[str, Any] = {
    "min_p": 0.0,
    "typical_p": 1.0,
    "top_n_sigma": 0.0,
    "top_h": 0.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "guidance_scale": 1.0,
    "no_repeat_ngram_size": 0,
    "thinking_budget": 0,
}
IDLE = {"negative_prompt"}  # does nothing without guidance


def refusal(settings: Settings) -> str:
    """What the torch model has to do instead, as the name of the strategy or of the setting; empty for nothing."""
    if settings.strategy not in STRATEGIES:
        return settings.strategy
    others = (name for name in strategies.find(settings.strategy).uses if name not in SHARED | IDLE)
    return next((name for name in others if name not in NEUTRAL or getattr(settings, name) != NEUTRAL[name]), "")


class OpenVinoEngine:
    """Answers with one exported model; one turn generates at a time, others wait.

    Only for settings without a `refusal`. Nothing of a conversation is kept but the keys and values of its tokens,
    which a later prompt that begins with the same tokens need not compute again.
    """

    def __init__(self, loaded: Loaded, folder: Path, turn_seconds: float = 300.0) -> None:
        self.loaded = loaded
        self._seconds = turn_seconds
        self._generating = threading.Lock()
        eos = loaded.model.generation_config.eos_token_id
        self._eos = set(eos if isinstance(eos, list) else [eos]) - {None}
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = PREFILL
        scheduler.enable_prefix_caching = True
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._pipeline = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", {**PROPERTIES, **threads})

    def stream(
        self,
        messages: Sequence[Message],
        settings: Settings,
        cancel: threading.Event,
        draft: Any = None,
        session: str = "",
    ) -> Iterator[Delta]:
        """See `Engine.stream`; raises `BadConversation` for a message that does not fit the context window."""
        began = time.monotonic()
        prompt = fit(self.loaded, messages, settings)
        seed = random.SystemRandom().randrange(2**32) if settings.seed is None else settings.seed
        limit = min(settings.max_new_tokens, self.loaded.context - prompt.length)
        brake = streaming.Brake(cancel, self._seconds)
        new_text = functools.partial(AnswerText, settings.stop_strings, in_thought=prompt.pre_opened)
        streamer = streaming.AnswerStreamer(self.loaded.tokenizer, prompt.ids[0].tolist(), new_text, brake)

        def work() -> None:
            while not self._generating.acquire(timeout=streaming.FLUSH):
                if brake.reason:
                    return
            try:
                self._generate(prompt, _config(settings, self._eos, limit, seed), streamer, brake)
            finally:
                self._generating.release()

        if prompt.dropped:
            turns = "turn was" if prompt.dropped == 1 else f"{prompt.dropped} turns were"
            yield Delta(notices=(f"The oldest {turns} left out: the conversation is longer than the model can read.",))
        yield from streaming.run(work, streamer, brake, cancel)
        first = None if streamer.first_piece is None else streamer.first_piece - began
        yield Delta(
            finish=brake.reason or self._natural_end(streamer.ids, limit, settings),
            usage=Usage(prompt.length, len(streamer.ids), first, time.monotonic() - began),
            seed=seed if strategies.find(settings.strategy).samples else None,
            ran=self._ran(prompt, settings, limit, seed, messages),
        )

    def _generate(
        self,
        prompt: Prompt,
        config: genai.GenerationConfig,
        streamer: streaming.AnswerStreamer,
        brake: streaming.Brake,
    ) -> None:
        ids = prompt.ids.numpy()
        # The pipeline cannot be stopped while it reads, but keeps what it has read: it is given the prompt in pieces.
        for end in range(PREFILL, ids.shape[1], PREFILL):
            if brake.reason:
                return
            self._pipeline.generate([openvino.Tensor(np.ascontiguousarray(ids[:, :end]))], [_reading()])
        if brake.reason:
            return
        listener = _Listener(streamer, brake)
        self._pipeline.generate([openvino.Tensor(ids)], [config], listener)
        if listener.error:
            raise listener.error

    def _natural_end(self, ids: Sequence[int], limit: int, settings: Settings) -> FinishReason:
        if len(ids) < limit or (ids and ids[-1] in self._eos):
            return "end"
        return "length" if limit == settings.max_new_tokens else "context"

    def _ran(self, prompt: Prompt, settings: Settings, limit: int, seed: int, messages: Sequence[Message]) -> Ran:
        row = strategies.find(settings.strategy)
        names = ["model", "strategy", *row.uses, *(["thinking"] if self.loaded.thinking else [])]
        values = {name: getattr(settings, name) for name in names} | ({"seed": seed} if row.samples else {})
        config = {"engine": NAME, "do_sample": row.samples} | values | {"max_new_tokens": limit}
        return Ran(self.loaded.tokenizer.decode(prompt.ids[0]), config, "", messages, values)


class _Listener(genai.StreamerBase):
    """Hands every token on, and ends the generation when the brake is pulled or the reader's side fails."""

    def __init__(self, streamer: streaming.AnswerStreamer, brake: streaming.Brake) -> None:
        super().__init__()
        self._streamer, self._brake = streamer, brake
        self.error: Exception | None = None

    def write(self, token: int | Sequence[int]) -> genai.StreamingStatus:
        """Takes one token or several; called in a thread of the library, which no exception may leave."""
        try:
            if not self._brake.reason:
                self._streamer.take(torch.tensor(token))
        except Exception as error:
            self.error = error
        stop = self.error or self._brake.reason
        return genai.StreamingStatus.CANCEL if stop else genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Nothing is held back."""


def _config(settings: Settings, eos: set[int], limit: int, seed: int) -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.max_new_tokens = limit
    config.stop_token_ids = eos
    config.repetition_penalty = settings.repetition_penalty
    if strategies.find(settings.strategy).samples:
        config.do_sample = True
        config.rng_seed = seed
        config.temperature = settings.temperature
        config.top_p = settings.top_p
        if settings.top_k:
            config.top_k = settings.top_k
    return config


def _reading() -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.max_new_tokens = 1
    return config
