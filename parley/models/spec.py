"""One model that can be chosen."""

from dataclasses import dataclass, field
from pathlib import Path

from parley.models.capabilities import Capabilities


@dataclass(frozen=True)
class ModelSpec:
    """One model that can be chosen, and where its files are."""

    name: str  # in the dropdown and the API
    id: str  # the id on the Hub, or the absolute path of a local folder; empty for the parrot
    label: str
    revision: str | None = None
    parameters: int | None = None
    bytes: int | None = None  # of the weights
    licence: str = "see its card"
    thinking: bool | None = None  # whether it has a thinking switch; None: not known before its template is read
    tier: str = "any"
    cpu_on_zerogpu: bool = False  # whether it answers on the CPU of a ZeroGPU Space, where it spends no quota
    engine: str = "local"
    gguf: str = ""  # the name of the GGUF file with the weights, in the repository or the folder
    adapter: str = ""  # the absolute path of a folder with a LoRA adapter that is merged into the model
    problem: str = ""  # why it cannot be used, as a sentence; it stays in the list, so that people see why
    draft: str = ""  # the name of its draft model, which has the same tokenizer
    capabilities: Capabilities = field(default=Capabilities(), repr=False)  # what its engine supports

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a model of the Hub."""
        return Path(self.id) if Path(self.id).is_absolute() else None


def size_text(size: float) -> str:
    """A number of bytes as text, such as "8.0 GB" or "34 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
