"""Samplers and penalties: logits processors that transformers does not have, one each."""
