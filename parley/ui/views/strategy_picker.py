"""What the list of strategies and the panel tell of a strategy, beside its name."""

from typing import Any

from parley.settings import OPTIONS
from parley.strategies import STRATEGIES, Strategy

TEXTS = {
    "paper": "Paper",
    "documentation": "Documentation",
    "lacks": "{summary} Not with this model: {settings}.",
    "described": "{hint} ({group})",  # for a screen reader, by panel.js
}


def explanation(row: Strategy, unsupported: str = "") -> str:
    """What stands under the chosen strategy, as Markdown."""
    source = TEXTS["paper"] if any(host in row.source for host in ("arxiv.org", "doi.org")) else TEXTS["documentation"]
    summary = TEXTS["lacks"].format(summary=row.summary, settings=unsupported) if unsupported else row.summary
    return f"{summary}\n{good(row)} [{source}]({row.source})"


def good(row: Strategy) -> str:
    """The sentence that says what the strategy is good for."""
    return f"Good {row.when[0].lower()}{row.when[1:]}"


def panel_data() -> dict[str, Any]:
    """What panel.js has to know: the settings in their order, which value of them is "off", and the strategies."""
    return {
        "settings": {o.name: {"label": o.label, "off": o.neutral if o.off else None} for o in OPTIONS.values()},
        "strategies": [
            {
                "name": row.name,
                "label": row.label,
                "group": row.group,
                "hint": row.hint,
                "temperature": "temperature" in row.settings,
            }
            for row in STRATEGIES.values()
        ],
    }
