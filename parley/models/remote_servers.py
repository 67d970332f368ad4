"""The server of the models in `REMOTE_MODELS`, as the owner's variables describe it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from parley import strategies
from parley.config import REMOTE_API_KEY, REMOTE_BASE_URL, REMOTE_MODELS, REMOTE_SETTINGS, check_key
from parley.errors import ModelUnavailable
from parley.models.capabilities import Capabilities
from parley.models.spec import ModelSpec

# The settings that every server takes, or that this app applies itself.
ALWAYS = ("model", "strategy", "max_new_tokens", "stop", "system_prompt")
PLACE = "Runs on another server, which reads what you type."


@dataclass(frozen=True)
class Server:
    """The address of a server, its key, and what it supports."""

    url: str | None  # None: Inference Providers
    key: str = field(repr=False)  # empty: it needs none
    key_name: str  # the environment variable with the key
    capabilities: Capabilities


def models(environ: Mapping[str, str]) -> dict[str, ModelSpec]:
    """The models of `REMOTE_MODELS`, by name; none if it is not set.

    Raises `ModelUnavailable` for wrong values of the variables.
    """
    names = REMOTE_MODELS.read(environ)
    capabilities = find(environ).capabilities if names else Capabilities()
    return {name: ModelSpec(name, "", name, engine="remote", capabilities=capabilities) for name in names}


def find(environ: Mapping[str, str]) -> Server:
    """The server of all remote models: `REMOTE_BASE_URL`, or Inference Providers, paid through `HF_TOKEN`.

    Raises `ModelUnavailable` for wrong values of the variables.
    """
    if url := REMOTE_BASE_URL.read(environ):
        key = REMOTE_API_KEY.read(environ)
        return Server(url, key, REMOTE_API_KEY.name, _capabilities(environ))
    key = environ.get("HF_TOKEN", "").strip()
    if not key.startswith("hf_"):
        raise ModelUnavailable(
            "REMOTE_MODELS names models, but not where they are. Set REMOTE_BASE_URL to the address of a server, or "
            "HF_TOKEN to a token that may call Inference Providers."
        )
    return Server(None, check_key("HF_TOKEN", key), "HF_TOKEN", _capabilities(environ))


def _capabilities(environ: Mapping[str, str]) -> Capabilities:
    named = REMOTE_SETTINGS.read(environ)
    remote = {name for name, row in strategies.STRATEGIES.items() if "remote" in row.engines}
    if "temperature" not in named:
        remote.discard("greedy")  # it is sent as a temperature of 0
    return Capabilities(frozenset((*ALWAYS, *named)), frozenset(remote))
