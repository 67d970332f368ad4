"""The engine for a transformers model in this process: chat template, context window, `generate`, streamer."""

import bisect
import functools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import StoppingCriteriaList

from parley import strategies, streaming
from parley.answer_text import OPEN, AnswerText
from parley.engines import decoding, hardware
from parley.engines.base import Delta, FinishReason, Ran, Usage
from parley.engines.loading import Loaded
from parley.engines.program import transformers_program
from parley.errors import BadConversation, BadSetting
from parley.kept_ids import splice
from parley.messages import Message, drop_oldest_turn, fold_system
from parley.prefix_cache import NoPrefixCache, PrefixCache
from parley.settings import Settings

# `generate` draws from torch's global generator: two that run at once would spoil each other's seeds.
_generating = threading.Lock()


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation that fits."""

    messages: Sequence[Message]  # those that fit, as the template takes them
    ids: torch.Tensor  # shape (1, tokens)
    dropped: int  # whole turns left out at the beginning
    pre_opened: bool  # the template has opened the thought already


class LocalEngine:
    """Answers with one loaded model; one turn generates at a time, others wait."""

    def __init__(self, loaded: Loaded, turn_seconds: float = 300.0) -> None:
        self.loaded = loaded
        self._seconds = turn_seconds
        eos = loaded.model.generation_config.eos_token_id
        self._eos = set(eos) if isinstance(eos, list) else {eos}
        self._prefixes = PrefixCache(loaded.model, self._most_remembered)
        streaming.install_brakes(loaded.model)

    def stream(
        self, messages: Sequence[Message], settings: Settings, cancel: threading.Event, session: str = ""
    ) -> Iterator[Delta]:
        """See `Engine.stream`; raises `BadConversation` for a message that does not fit the context window."""
        began = time.monotonic()
        reads_all = strategies.find(settings.strategy).reads_all
        prefixes = self._prefixes if session and not reads_all else NoPrefixCache()
        prompt = self._prompt(messages, settings, prefixes.sequence(session))
        room = self.loaded.context - prompt.ids.shape[1]
        limit = min(settings.max_new_tokens, room)
        seed = random.SystemRandom().randrange(2**32) if settings.seed is None else settings.seed
        brake = streaming.Brake(cancel, self._seconds)
        new_text = functools.partial(AnswerText, settings.stop_strings, in_thought=prompt.pre_opened)
        streamer = streaming.AnswerStreamer(self.loaded.tokenizer, prompt.ids[0].tolist(), new_text, brake)
        plan = decoding.plan(self.loaded, settings, limit)
        cached_tokens = 0

        def work() -> None:
            nonlocal cached_tokens
            while not _generating.acquire(timeout=streaming.FLUSH):
                if brake.reason:
                    return
            try:
                torch.manual_seed(seed)
                length, rows = prompt.ids.shape[1] + limit, plan.config["num_beams"]
                with (
                    torch.inference_mode(),
                    prefixes.lend(session, prompt.ids[0].tolist(), rows, length, lambda: streamer.ids) as loan,
                ):
                    cached_tokens = loan.cached_tokens
                    self._generate(prompt, plan.arguments(streamer) | loan.arguments, brake)
            finally:
                _generating.release()

        if prompt.dropped:
            turns = "turn was" if prompt.dropped == 1 else f"{prompt.dropped} turns were"
            yield Delta(notices=(f"The oldest {turns} left out: the conversation is longer than the model can read.",))
        yield from streaming.run(work, streamer, brake, cancel)
        finish = brake.reason or self._natural_end(streamer.ids, limit, settings)
        first = None if streamer.first_piece is None else streamer.first_piece - began
        guesses = streamer.drafted, streamer.accepted
        taken = time.monotonic() - began
        usage = Usage(prompt.ids.shape[1], len(streamer.ids), first, taken, *guesses, cached_tokens)
        drawn = seed if strategies.find(settings.strategy).samples else None
        yield Delta(finish=finish, usage=usage, seed=drawn, ran=self._ran(prompt, settings, plan, seed))

    def _ran(self, prompt: Prompt, settings: Settings, plan: decoding.Plan, seed: int) -> Ran:
        config = {name: value for name, value in plan.config.items() if value is not None} | plan.options
        program = transformers_program(self.loaded, prompt.messages, settings, plan, seed)
        return Ran(self.loaded.tokenizer.decode(prompt.ids[0]), config, program)

    def _natural_end(self, ids: Sequence[int], limit: int, settings: Settings) -> FinishReason:
        if len(ids) < limit or (ids and ids[-1] in self._eos):
            return "end"
        return "length" if limit == settings.max_new_tokens else "context"

    def _generate(self, prompt: Prompt, arguments: dict[str, Any], brake: streaming.Brake) -> None:
        device = self.loaded.model.device
        self.loaded.model.generate(
            prompt.ids.to(device),
            attention_mask=torch.ones_like(prompt.ids, device=device),
            stopping_criteria=StoppingCriteriaList([streaming.Braked(brake)]),
            **arguments,
        )

    def _most_remembered(self) -> int:
        """Bytes for all prefixes: a quarter of the memory that would be free without them."""
        gpu = self.loaded.model.device.type == "cuda"
        free = torch.cuda.mem_get_info()[0] if gpu else hardware.free_memory()
        return (free + self._prefixes.bytes) // 4

    def _prompt(self, messages: Sequence[Message], settings: Settings, kept: Sequence[int] = ()) -> Prompt:
        """The newest part of the conversation that leaves room for an answer, rendered.

        `kept` are the tokens of an earlier turn: what the conversation has of them is not cut into tokens anew.
        """
        if settings.thinking and not self.loaded.thinking:
            raise BadSetting(f"{self.loaded.row.label} has no thinking switch. Turn thinking off.")
        fits = self.loaded.context - min(settings.max_new_tokens, self.loaded.context // 4)
        shorter = [list(messages)]
        while (rest := drop_oldest_turn(shorter[-1])) is not None:
            shorter.append(rest)
        index = 0
        if self._render(shorter[0], settings).shape[1] > fits:
            # A shorter conversation never has more tokens, so the longest that fits is found by bisection.
            index = bisect.bisect_left(shorter, -fits, lo=1, key=lambda m: -self._render(m, settings).shape[1])
        if index == len(shorter):
            needed = self._render(shorter[-1], settings).shape[1]
            raise BadConversation(
                f"This message needs {needed} tokens, but {self.loaded.row.label} reads at most {fits} "
                "and needs the rest for its answer. Shorten it, or choose a model with a larger context."
            )
        ids = self._render(shorter[index], settings)
        spliced = splice(kept, ids[0].tolist(), self.loaded.tokenizer)
        if len(spliced) <= fits:
            ids = torch.tensor([spliced])
        tail = self.loaded.tokenizer.decode(ids[0, -8:])
        return Prompt(self._told(shorter[index]), ids, dropped=index, pre_opened=tail.rstrip().endswith(OPEN))

    def _told(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages if self.loaded.system_role else fold_system(messages)

    def _render(self, messages: Sequence[Message], settings: Settings) -> torch.Tensor:
        """Token ids of shape (1, tokens); what people typed can not become a control token."""
        switch = {"enable_thinking": settings.thinking} if self.loaded.thinking else {}
        try:
            encoded = self.loaded.tokenizer.apply_chat_template(
                [m._asdict() for m in self._told(messages)],
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                sanitize_control_tokens=True,
                **switch,
            )
        except TemplateError as error:
            raise BadConversation(
                f"The chat template of {self.loaded.row.label} refuses this conversation: {error}. Clear the chat."
            ) from error
        return encoded["input_ids"]
