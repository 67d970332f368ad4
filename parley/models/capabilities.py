"""The settings and strategies that each kind of engine supports."""

from dataclasses import dataclass

from parley import strategies
from parley.settings import OPTIONS, Option, Settings


@dataclass(frozen=True)
class Capabilities:
    """The names of the settings and strategies that an engine supports."""

    settings: frozenset[str] = frozenset(OPTIONS)
    strategies: frozenset[str] | None = None  # None: all strategies of the local engines

    def refusal(self, label: str, settings: Settings) -> str:
        """Why the engine of the model `label` cannot follow the settings, as a sentence that says what to do.

        Empty where it can, and for an engine that does not take a strategy, because it ignores all such settings.
        """
        if "strategy" not in self.settings:
            return ""
        mode = [OPTIONS["mode"]] if "mode" not in self.settings else []
        for option in [*self.unsupported(settings.effective_strategy.name), *mode]:
            if getattr(settings, option.name) != option.neutral:
                return (
                    f"The server of {label} takes no {option.label}. "
                    f"Set {option.name} to {option.neutral!r}, or choose another model."
                )
        return ""

    def unsupported(self, strategy: str) -> list[Option]:
        """The settings of this strategy that the engine does not support."""
        names = (*strategies.find(strategy).uses, "thinking", "reasoning_effort")
        return [OPTIONS[name] for name in names if name not in self.settings]


PARROT = Capabilities(settings=frozenset(("max_new_tokens", "stop")))
