"""Rows of the table of strategies share decode loops: what holds for a loop is tested with one of its rows."""

from parley.strategies import STRATEGIES

LOOPS = list({row.decoder: name for name, row in reversed(STRATEGIES.items())}.values())
SPECULATIVE = [name for name, row in STRATEGIES.items() if "draft_tokens" in row.settings and not row.samples]
SAMPLING = [name for name, row in STRATEGIES.items() if row.samples]
WATERMARKS = [name for name, row in STRATEGIES.items() if row.watermark]
