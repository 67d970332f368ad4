"""The formats of weights besides a folder of safetensors files: GGUF files, and LoRA adapters."""
