"""The engine for a transformers model in this process: chat template, context window, `generate`, streamer."""

import functools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import StoppingCriteriaList

from parley import strategies
from parley.engines.base import Delta, FinishReason, Ran, Usage
from parley.engines.loader import Loaded
from parley.generation import generation_config, streaming
from parley.generation.prefix_cache import NoPrefixCache, PrefixCache
from parley.generation.prompt import Prompt, fit
from parley.generation.reasoning_parser import AnswerText
from parley.generation.reproduce import transformers_program
from parley.messages import Message
from parley.models import hardware
from parley.settings import Settings
from parley.strategies.processors.watermark_detection import Detection
from parley.strategies.processors.watermarks import Mark, detect

# `generate` draws from torch's global generator: two that run at once would spoil each other's seeds.
_generating = threading.Lock()


class LocalEngine:
    """Answers with one loaded model; one turn generates at a time, others wait."""

    def __init__(self, loaded: Loaded, turn_seconds: float = 300.0) -> None:
        self.loaded = loaded
        self._seconds = turn_seconds
        eos = loaded.model.generation_config.eos_token_id
        self._eos = set(eos) if isinstance(eos, list) else {eos}
        self._prefixes = PrefixCache(loaded.model, self._most_remembered)
        streaming.install_brakes(loaded.model)

    @property
    def prefixes(self) -> tuple[PrefixCache, ...]:
        """What it remembers of conversations."""
        return (self._prefixes,)

    def stream(
        self,
        messages: Sequence[Message],
        settings: Settings,
        cancel: threading.Event,
        draft: "LocalEngine | None" = None,
        session: str = "",
    ) -> Iterator[Delta]:
        """See `Engine.stream`; raises `BadConversation` for a message that does not fit the context window."""
        began = time.monotonic()
        reads_all = strategies.find(settings.strategy).reads_all
        prefixes = self._prefixes if session and not reads_all else NoPrefixCache()
        prompt = fit(self.loaded, messages, settings, prefixes.sequence(session))
        plan = generation_config.plan(self.loaded, settings, prompt, draft.loaded if draft else None)
        seed = random.SystemRandom().randrange(2**32) if settings.seed is None else settings.seed
        brake = streaming.Brake(cancel, self._seconds)
        new_text = functools.partial(AnswerText, settings.stop_strings, prompt.pre_opened, prompt.continues)
        streamer = streaming.AnswerStreamer(self.loaded.tokenizer, prompt.ids[0].tolist(), new_text, brake)
        cached_tokens = 0

        def work() -> None:
            nonlocal cached_tokens
            while not _generating.acquire(timeout=streaming.FLUSH):
                if brake.reason:
                    return
            try:
                torch.manual_seed(seed)
                with (
                    torch.inference_mode(),
                    prefixes.lend(
                        session, prompt.ids[0].tolist(), plan.config["num_beams"], plan.longest, lambda: streamer.ids
                    ) as loan,
                ):
                    cached_tokens = loan.cached_tokens
                    self._generate(prompt, plan.arguments(streamer) | loan.arguments, brake, streamer)
            finally:
                _generating.release()

        if prompt.dropped:
            turns = "turn was" if prompt.dropped == 1 else f"{prompt.dropped} turns were"
            yield Delta(notices=(f"The oldest {turns} left out: the conversation is longer than the model can read.",))
        yield from streaming.run(work, streamer, brake, cancel)
        finish = brake.reason or self._natural_end(streamer.ids, plan.config["max_new_tokens"], settings)
        first = None if streamer.first_piece is None else streamer.first_piece - began
        guesses = streamer.drafted, streamer.accepted
        taken = time.monotonic() - began
        usage = Usage(prompt.length, len(streamer.ids), first, taken, *guesses, cached_tokens)
        yield Delta(
            finish=finish,
            usage=usage,
            seed=seed if strategies.find(settings.strategy).samples else None,
            notices=self._left_out(streamer.ids, settings) if finish in ("end", "length", "context") else (),
            ran=self._ran(prompt, settings, plan, seed, messages),
        )

    @property
    def bytes(self) -> int:
        """The memory that its model takes."""
        return self.loaded.model.get_memory_footprint()

    @property
    def _computes(self) -> str:
        """What computes, and in which numbers."""
        return f"PyTorch {self.loaded.fit.numbers}"

    @property
    def _rounds(self) -> bool:
        """Whether it computes with fewer bits than the weights are stored with."""
        return self.loaded.fit.quantization != "none"

    def detect(self, text: str, settings: Settings) -> Detection:
        """How surely a text, as this model writes it, bears the watermark of these settings."""
        ids = self.loaded.tokenizer.encode(text, add_special_tokens=False)
        return detect(generation_config.mark(settings), ids, self.loaded.model.config.get_text_config().vocab_size)

    def _ran(
        self, prompt: Prompt, settings: Settings, plan: generation_config.Plan, seed: int, messages: Sequence[Message]
    ) -> Ran:
        config = {"engine": self._computes}
        config |= {name: value for name, value in plan.config.items() if value is not None} | plan.options
        config |= {name: mark.to_dict() for name, mark in config.items() if isinstance(mark, Mark)}  # plain data
        program = transformers_program(self.loaded, prompt, settings, plan, seed)
        if self._rounds:
            program = (
                f"# {self._computes} answered. This takes the weights as they are stored: words may differ.\n{program}"
            )
        names = ["model", "strategy", *strategies.find(settings.strategy).uses]
        values = {name: getattr(settings, name) for name in [*names, *(["thinking"] if self.loaded.thinking else [])]}
        values |= {"seed": seed} if "seed" in values else {}
        return Ran(self.loaded.tokenizer.decode(prompt.ids[0]), config, program, messages, values)

    def _left_out(self, ids: Sequence[int], settings: Settings) -> tuple[str, ...]:
        """A sentence about the words that had to occur and do not, for want of room."""
        wanted = settings.forced_words if "force_words" in strategies.find(settings.strategy).uses else ()
        text = self.loaded.tokenizer.decode(ids)
        missing = ", ".join(word for word in wanted if word not in text)
        return (f"There was no room for: {missing}. Raise max new tokens.",) if missing else ()

    def _natural_end(self, ids: Sequence[int], limit: int, settings: Settings) -> FinishReason:
        if len(ids) < limit or (ids and ids[-1] in self._eos):
            return "end"
        return "length" if limit == settings.max_new_tokens else "context"

    def _generate(
        self, prompt: Prompt, arguments: dict[str, Any], brake: streaming.Brake, streamer: streaming.AnswerStreamer
    ) -> None:
        device = self.loaded.model.device
        away = {"negative_prompt_ids": prompt.negative.ids.to(device)} if prompt.negative else {}
        self.loaded.model.generate(
            prompt.ids.to(device),
            attention_mask=torch.ones_like(prompt.ids, device=device),
            stopping_criteria=StoppingCriteriaList([streaming.Braked(brake)]),
            **arguments,
            **away,
        )

    def _most_remembered(self) -> int:
        """Bytes for all prefixes: a quarter of the memory that would be free without them."""
        gpu = self.loaded.model.device.type == "cuda"
        free = torch.cuda.mem_get_info()[0] if gpu else hardware.free_memory()
        return (free + self._prefixes.bytes) // 4
