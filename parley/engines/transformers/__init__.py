"""The engine for models of transformers: on GPUs, and for architectures that the OpenVINO engine does not support."""
