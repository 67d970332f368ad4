"""Where the models of `REMOTE_MODELS` are and what their server capabilities, as the owner's variables say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from parley.errors import ModelUnavailable
from parley.models.capabilities import Capabilities
from parley.models.spec import ModelSpec

# What we send to every server or see to ourselves, what the standard has, and what only some servers know.
ALWAYS = ("model", "strategy", "max_new_tokens", "stop", "system_prompt")
STANDARD = ("temperature", "top_p", "seed")
EXTRA = ("top_k", "min_p", "repetition_penalty", "thinking")
PLACE = "Runs on another server, which reads what you type."


@dataclass(frozen=True)
class Server:
    """One address, and what can be asked for there."""

    url: str | None  # None: Inference Providers
    key: str = field(repr=False)  # empty: it asks for none
    key_name: str  # the variable that it comes from
    capabilities: Capabilities


def models(environ: Mapping[str, str]) -> dict[str, ModelSpec]:
    """The models of `REMOTE_MODELS`, by name; none where it is not set, whatever else is.

    Raises `ModelUnavailable` for what the variables should not say.
    """
    names = items(environ, "REMOTE_MODELS")
    capabilities = find(environ).capabilities if names else Capabilities()
    return {name: ModelSpec(name, "", name, engine="remote", capabilities=capabilities) for name in names}


def find(environ: Mapping[str, str]) -> Server:
    """The server of all remote models: that of `REMOTE_BASE_URL`, else Inference Providers, whom `HF_TOKEN` pays.

    Raises `ModelUnavailable` for what the variables should not say.
    """
    url = environ.get("REMOTE_BASE_URL", "").strip()
    key_name = "REMOTE_API_KEY" if url else "HF_TOKEN"
    key = environ.get(key_name, "").strip()
    if url and not _is_address(url):
        raise ModelUnavailable("REMOTE_BASE_URL is no address. Write one such as http://127.0.0.1:8000/v1.")
    if not url and not key.startswith("hf_"):
        raise ModelUnavailable(
            "REMOTE_MODELS names models, but not where they are. Set REMOTE_BASE_URL to the address of a server, or "
            "HF_TOKEN to a token that may call Inference Providers."
        )
    if not all("!" <= character <= "~" for character in key):
        raise ModelUnavailable(f"{key_name} has characters that no key has. Copy it once more.")
    return Server(url or None, key, key_name, _honours(environ))


def _honours(environ: Mapping[str, str]) -> Capabilities:
    named = items(environ, "REMOTE_SETTINGS") if "REMOTE_SETTINGS" in environ else STANDARD
    if unknown := sorted(set(named) - {*STANDARD, *EXTRA}):
        raise ModelUnavailable(
            f"REMOTE_SETTINGS has {unknown[0]!r}. It may have {', '.join((*STANDARD, *EXTRA))}, a comma between them."
        )
    strategies = ["sampling", *(["greedy"] if "temperature" in named else [])]  # greedy is a temperature of 0
    return Capabilities(frozenset((*ALWAYS, *named)), frozenset(strategies))


def items(environ: Mapping[str, str], name: str) -> list[str]:
    """What the owner lists in that variable, a comma between: each once."""
    return list(dict.fromkeys(item.strip() for item in environ.get(name, "").split(",") if item.strip()))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
