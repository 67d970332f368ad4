"""The order of the processors: what changes the logits before a token is chosen, and by which setting.

It is that of `generate` in transformers, which begins with its own processors and ends with temperature, truncation
and watermark. Ours stand between them. Where one of ours belongs behind the temperature (`AFTER_TEMPERATURE`), the
plan makes temperature and truncation itself, in the same order.
"""

from typing import Any

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

# The setting of each processor, by the name of its class, in the order in which they run.
ORDER = {
    "UnbatchedClassifierFreeGuidanceLogitsProcessor": "guidance_scale",
    "Guidance": "guidance_scale",
    "Contrast": "dola_layers",
    "NoRepeatNGramLogitsProcessor": "no_repeat_ngram_size",
    "MinNewTokensLengthLogitsProcessor": "min_new_tokens",
    "RepetitionPenalty": "repetition_penalty",
    "PresencePenalty": "presence_penalty",
    "FrequencyPenalty": "frequency_penalty",
    "Dry": "dry_multiplier",
    "LogitBias": "logit_bias",
    "BannedWords": "bad_words",
    "AnswerForm": "answer_form",
    "ThinkingBudget": "thinking_budget",
    "TopNSigma": "top_n_sigma",
    "TemperatureLogitsWarper": "temperature",
    "DynamicTemperature": "dynatemp_range",
    "TopHLogitsWarper": "top_h",
    "TopKLogitsWarper": "top_k",
    "TopPLogitsWarper": "top_p",
    "MinPLogitsWarper": "min_p",
    "TypicalLogitsWarper": "typical_p",
    "EpsilonLogitsWarper": "epsilon_cutoff",
    "EtaLogitsWarper": "eta_cutoff",
    "Xtc": "xtc_probability",
    "Mirostat": "mirostat_tau",
}
SETTINGS = tuple(dict.fromkeys(ORDER.values()))
AFTER_TEMPERATURE = (
    "dynatemp_range",
    "xtc_probability",
    "mirostat_tau",
)  # off at 0
# Temperature and truncation of transformers, by the setting, each made from its value alone.
WARPERS: dict[str, type[Any]] = {
    "temperature": TemperatureLogitsWarper,
    "top_h": TopHLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
    "epsilon_cutoff": EpsilonLogitsWarper,
    "eta_cutoff": EtaLogitsWarper,
}
VALUES = {"typical_p": "mass", "epsilon_cutoff": "epsilon", "eta_cutoff": "epsilon"}  # attributes with other names


def setting_of(processor: Any) -> str:
    """The setting that stands for what changed scores; for a watermark, the name of its class."""
    name = type(processor).__name__
    return ORDER.get(name, name)


def warper(setting: str, value: float, device: Any) -> LogitsProcessor:
    """What transformers makes of this setting of temperature or truncation."""
    more = {"device": device} if setting == "eta_cutoff" else {}
    return WARPERS[setting](value, **more)


def expression(processor: LogitsProcessor) -> str:
    """A Python expression that makes this processor. Those of transformers have none of their own."""
    if type(processor) not in WARPERS.values():
        return repr(processor)
    setting = setting_of(processor)
    value = getattr(processor, VALUES.get(setting, setting))
    return f"{type(processor).__name__}({value.item() if isinstance(value, torch.Tensor) else value})"
