"""Which models there are, and whether one fits this machine. No module here loads weights."""
