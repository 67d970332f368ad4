"""Which models there are, and whether one fits this machine. Nothing in here loads weights."""
