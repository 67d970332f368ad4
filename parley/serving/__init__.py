"""Runs turns: the waiting line, the thread and process of a turn, and the pool of loaded models."""
