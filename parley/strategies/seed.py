"""The seed of an answer whose settings have none."""

import random

ENTROPY: random.Random = random.SystemRandom()


def fresh_seed() -> int:
    """A seed in [0, 2**32), which nobody can foretell."""
    return ENTROPY.randrange(2**32)
