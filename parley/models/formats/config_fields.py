"""The fields of a `GenerationConfig` of transformers that follow from the settings alone.

It needs neither torch nor transformers, so the page imports neither to save and open such a file.
"""

from typing import Any

from parley.settings import OPTIONS, Settings
from parley.strategies import Strategy

COPIED = {name: option.copied for name, option in OPTIONS.items() if option.copied}  # settings with a config field
# The fields of those that the strategy does not use. `generate` would fill omitted fields with the model's defaults.
UNUSED = {"do_sample": False, "early_stopping": False} | {name: mark.unused for name, mark in COPIED.items()}
OFF = {name: OPTIONS[name].neutral for name, mark in COPIED.items() if mark.none_if_neutral}  # values copied as None


def config_fields(strategy: Strategy, settings: Settings) -> dict[str, Any]:
    """The fields of a `GenerationConfig` that follow from the settings alone, but for a watermark."""
    config = UNUSED | {"do_sample": strategy.samples, "max_new_tokens": settings.max_new_tokens}
    for name in strategy.uses:
        value = getattr(settings, name)
        if name in COPIED and OFF.get(name) != value:
            config[name] = value
    return {**config, **strategy.config(settings)}
