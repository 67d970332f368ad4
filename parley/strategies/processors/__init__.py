"""Logits processors that transformers does not have, and the detection of watermarks."""
