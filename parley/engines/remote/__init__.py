"""Models on a server of chat completions."""
