"""Dynamic temperature: higher where the model is unsure, lower where it is sure (kalomaze, 2023).

https://github.com/ggml-org/llama.cpp/pull/4972, `llama_sampler_temp_ext` of llama.cpp; koboldcpp has the same.
"""

import torch
from transformers import LogitsProcessor


class DynamicTemperature(LogitsProcessor):
    """Divides the logits by low + (high - low) * (entropy / greatest possible entropy) ** `exponent`.

    `low` and `high` are `temperature` - `spread`, at least 0, and `temperature` + `spread`. At a temperature of 0 only
    the likeliest token stays.
    """

    def __init__(self, temperature: float, spread: float, exponent: float) -> None:
        self._temperature, self._spread, self._exponent = temperature, spread, exponent

    def __repr__(self) -> str:
        return f"DynamicTemperature({self._temperature}, {self._spread}, {self._exponent})"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: shape (sequences, vocabulary)."""
        low, high = max(0.0, self._temperature - self._spread), self._temperature + self._spread
        logs = scores.log_softmax(-1)
        entropy = -(logs.exp() * logs.masked_fill(logs == -torch.inf, 0.0)).sum(-1, keepdim=True)
        greatest = (scores > -torch.inf).sum(-1, keepdim=True).to(scores.dtype).log()
        share = torch.where(greatest > 0, entropy / greatest, 0.0).clamp(0.0, 1.0)
        temperature = low + (high - low) * share**self._exponent
        cold = scores.masked_fill(scores < scores.amax(-1, keepdim=True), -torch.inf)
        return torch.where(temperature > 0, scores / temperature.clamp_min(1e-6), cold)
