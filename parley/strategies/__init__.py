"""The decoding strategies: how the next token is chosen. Importing this package does not import torch."""

from parley.strategies.registry import STRATEGIES, Strategy, find

__all__ = ["STRATEGIES", "Strategy", "find"]
