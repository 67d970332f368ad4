"""Where the models of `REMOTE_MODELS` are and what their server capabilities, as the owner's variables say."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from parley import strategies
from parley.config import REMOTE_API_KEY, REMOTE_BASE_URL, REMOTE_MODELS, REMOTE_SETTINGS, check_key
from parley.errors import ModelUnavailable
from parley.models.capabilities import Capabilities
from parley.models.spec import ModelSpec

# What we send to every server or see to ourselves.
ALWAYS = ("model", "strategy", "max_new_tokens", "stop", "system_prompt")
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
    names = REMOTE_MODELS.read(environ)
    capabilities = find(environ).capabilities if names else Capabilities()
    return {name: ModelSpec(name, "", name, engine="remote", capabilities=capabilities) for name in names}


def find(environ: Mapping[str, str]) -> Server:
    """The server of all remote models: that of `REMOTE_BASE_URL`, else Inference Providers, whom `HF_TOKEN` pays.

    Raises `ModelUnavailable` for what the variables should not say.
    """
    if url := REMOTE_BASE_URL.read(environ):
        key = REMOTE_API_KEY.read(environ)
        return Server(url, key, REMOTE_API_KEY.name, _honours(environ))
    key = environ.get("HF_TOKEN", "").strip()
    if not key.startswith("hf_"):
        raise ModelUnavailable(
            "REMOTE_MODELS names models, but not where they are. Set REMOTE_BASE_URL to the address of a server, or "
            "HF_TOKEN to a token that may call Inference Providers."
        )
    return Server(None, check_key("HF_TOKEN", key), "HF_TOKEN", _honours(environ))


def _honours(environ: Mapping[str, str]) -> Capabilities:
    named = REMOTE_SETTINGS.read(environ)
    remote = {name for name, row in strategies.STRATEGIES.items() if "remote" in row.engines}
    if "temperature" not in named:
        remote.discard("greedy")  # which is a temperature of 0
    return Capabilities(frozenset((*ALWAYS, *named)), frozenset(remote))
