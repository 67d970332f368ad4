"""Decode loops, each for `generate(custom_generate=…)`."""
