"""The CPU engine: builds the graph of a decoder from its weights, with one pool of KV blocks per model."""
