"""The prompts of a comparison: each is read once, and all turns that have it go on from a copy of what was read."""

import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from parley.events import FLUSH
from parley.generation.prefix_cache import CacheLease, LeaseRequest, NoPrefixCache
from parley.generation.streaming import raise_if_stopped

Read = TypeVar("Read")  # what an engine keeps of a prompt


@dataclass
class _Prompt(Generic[Read]):
    read: Read
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while a turn reads on


class SharedPrompts(NoPrefixCache, Generic[Read]):
    """In the place of a prefix cache, for the turns of one comparison with one engine. Nothing outlives it.

    The first turn reads its prompt, and those with the same one wait for it. Where it is stopped meanwhile, the next
    one reads on.
    """

    def __init__(self) -> None:
        self._prompts: dict[tuple[int, ...], _Prompt[Read]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def acquire(self, request: LeaseRequest) -> Iterator[CacheLease]:
        """A lease with a copy of what was read of the prompt, to which the turn may write."""
        yield self._lease(self._once(request.prompt), request)

    def _once(self, prompt: Sequence[int]) -> Read:
        """What was read of this prompt. Raises `Interrupted` if the turn of this thread is stopped before."""
        with self._lock:
            key = tuple(prompt)
            shared = self._prompts.get(key) or self._prompts.setdefault(key, _Prompt(self._begin(prompt)))
        while not shared.lock.acquire(timeout=FLUSH):
            raise_if_stopped()
        try:
            self._read_on(shared.read, prompt)
        finally:
            shared.lock.release()
        return shared.read

    @abstractmethod
    def _begin(self, prompt: Sequence[int]) -> Read:
        """What there is of this prompt before the comparison reads any of it."""

    @abstractmethod
    def _read_on(self, read: Read, prompt: Sequence[int]) -> None:
        """Reads the rest of the prompt, but for the last tokens, which each turn reads for their logits."""

    @abstractmethod
    def _lease(self, read: Read, request: LeaseRequest) -> CacheLease:
        """A copy for one turn."""
