"""The settings of a turn from the values of a visitor, checked against the model that they name."""

from collections.abc import Mapping
from typing import Any

from parley.errors import NotSupported
from parley.models import registry
from parley.settings import Settings


def read(values: Mapping[str, Any]) -> Settings:
    """The settings, with what their model recommends for those that are left out.

    Reads the small files of the model, perhaps from the network. Raises `ChatError`.
    """
    name = Settings.check({"model": values.get("model")}).model or registry.default().name
    spec = registry.find(name)
    traits = registry.traits(spec)
    settings = Settings.check({**values, "model": name}, traits.recommended)
    refusal = ""
    if "strategy" in spec.capabilities.settings:
        refusal = settings.effective_strategy.refusal(registry.strategy_traits(spec, traits))
    if refusal := refusal or spec.capabilities.refusal(spec.label, settings):
        raise NotSupported(refusal, name="strategy")
    return settings
