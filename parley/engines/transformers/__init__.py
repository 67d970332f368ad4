"""Models of transformers, for GPUs and for architectures that the CPU engine does not know."""
