"""Cancels turns in other processes, by shared memory that this process writes and every forked process reads."""

import hashlib
import mmap

NUM_SLOTS, SLOT_BYTES = 4096, 16
_slots = mmap.mmap(-1, NUM_SLOTS * SLOT_BYTES)  # shared with processes that are forked later; never freed


def request(run_id: str) -> None:
    """Requests the cancellation of this turn. The request overwrites an older one in the same slot."""
    begin, digest = _slot(run_id)
    _slots[begin : begin + SLOT_BYTES] = digest


def is_requested(run_id: str) -> bool:
    """Whether the cancellation of this turn was requested."""
    begin, digest = _slot(run_id)
    return _slots[begin : begin + SLOT_BYTES] == digest


def _slot(run_id: str) -> tuple[int, bytes]:
    """The first byte of the turn's slot, and the content of the slot after a request."""
    digest = hashlib.blake2b(run_id.encode(), digest_size=SLOT_BYTES).digest()
    return int.from_bytes(digest[:4]) % NUM_SLOTS * SLOT_BYTES, digest
