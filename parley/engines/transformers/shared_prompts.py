"""The prompts of a comparison for a model of transformers: a KV cache for each, of which every turn gets a copy."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from parley.engines.shared_prompts import SharedPrompts
from parley.generation.prefix_cache import CacheLease, CacheSnapshot, LeaseRequest, TurnCache


@dataclass
class ReadPrompt:
    """What was read of a prompt; None before."""

    snapshot: CacheSnapshot | None = None


class SharedCaches(SharedPrompts[ReadPrompt]):
    """KV caches that hold prompts. `snapshots` are those of the session, with which they may begin."""

    def __init__(self, model: PreTrainedModel, snapshots: Sequence[CacheSnapshot]) -> None:
        super().__init__()
        self._model, self._snapshots = model, snapshots

    def _begin(self, prompt: Sequence[int]) -> ReadPrompt:
        return ReadPrompt()

    def _read_on(self, read: ReadPrompt, prompt: Sequence[int]) -> None:
        if read.snapshot is None:
            turn = TurnCache(self._model, prompt, len(prompt) + 1, [copy.deepcopy(each) for each in self._snapshots])
            read.snapshot = turn.read_prompt()

    def _lease(self, read: ReadPrompt, request: LeaseRequest) -> CacheLease:
        own = [copy.deepcopy(read.snapshot)] if read.snapshot else []
        turn = TurnCache(self._model, request.prompt, request.max_length, own)
        return CacheLease(turn.cached_tokens, {"past_key_values": turn.cache(request.num_sequences)})
