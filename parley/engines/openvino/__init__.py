"""The CPU engine: the graph of a decoder written from its weights, over one pool of KV blocks a model."""
