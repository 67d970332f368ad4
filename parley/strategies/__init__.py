"""The decoding strategies: how the next token is chosen. Importing this package does not import torch."""

from parley.strategies.registry import STRATEGIES, Strategy, find, searched

__all__ = ["STRATEGIES", "Strategy", "find", "searched"]
