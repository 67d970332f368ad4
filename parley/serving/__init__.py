"""One turn: its place in the line, its thread, its process and the memory of its model."""
