"""The engine for models on a chat completions server."""
