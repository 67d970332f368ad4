"""What can be asked of an engine: names of settings and of strategies."""

from dataclasses import dataclass

from parley import strategies
from parley.settings import OPTIONS, Option, Settings


@dataclass(frozen=True)
class Capabilities:
    """What an engine can be asked for: names of settings and of strategies. Every kind of engine declares its own."""

    settings: frozenset[str] = frozenset(OPTIONS)
    strategies: frozenset[str] | None = None  # None: all that the local engines run

    def refusal(self, label: str, settings: Settings) -> str:
        """Why an engine of this kind, called `label`, cannot do what was set, as a sentence that says what to do;
        empty where it can. One that takes no strategy decides nothing, so it cannot disobey.
        """
        if "strategy" not in self.settings:
            return ""
        for option in self.unsupported(settings.strategy):
            if getattr(settings, option.name) != option.neutral:
                return (
                    f"The server of {label} takes no {option.label}. "
                    f"Set {option.name} to {option.neutral!r}, or choose another model."
                )
        return ""

    def unsupported(self, strategy: str) -> list[Option]:
        """The settings that this strategy uses elsewhere, and that an engine of this kind does not honour."""
        return [OPTIONS[name] for name in (*strategies.find(strategy).uses, "thinking") if name not in self.settings]


PARROT = Capabilities(settings=frozenset(("max_new_tokens", "stop")))
