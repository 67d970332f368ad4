"""The models on this disk that the owner names: folders, GGUF files and adapters.

The name of such a model is public. It is the label that the owner gives, or the last part of the path, and never the
path itself.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from parley.models.formats import gguf, lora
from parley.models.spec import ModelSpec

SUFFIX = ".gguf"
OWN = "your own"  # in place of a licence


def split(item: str) -> tuple[str, str]:
    """The public name and the place of an item "place" or "label=place"."""
    label, equals, place = (part.strip() for part in item.partition("="))
    place = place if equals else label
    return (label if equals else Path(place).name if path(place) else place), place


def path(place: str) -> Path | None:
    """The path that `place` means; None for a name on the Hub. What is on the disk comes before the Hub."""
    found = Path(place).expanduser()
    written_as_path = place.startswith((".", "~")) or found.is_absolute()
    return found.resolve() if written_as_path or holds_model(found) else None


def holds_model(found: Path) -> bool:
    """Whether a model is there: a folder of any of its formats, or a GGUF file."""
    if found.suffix == SUFFIX:
        return found.is_file()
    return any((found / name).is_file() for name in ("config.json", lora.CONFIG)) or any(found.glob(f"*{SUFFIX}"))


def spec(name: str, found: Path, base: Callable[[str, Path], ModelSpec]) -> ModelSpec:
    """The model at that path; with a `problem` where it cannot be used.

    `base` gives the base model of an adapter from what the adapter calls it and the folder that it may be beside.
    """
    row = ModelSpec(name, str(found), name, licence=OWN)
    if (found / lora.CONFIG).is_file():
        return _adapted(row, found, base)
    if (found / "config.json").is_file():
        return row
    if found.suffix == SUFFIX:
        row, files = replace(row, id=str(found.parent)), [found] if found.is_file() else []
    else:
        files = sorted(found.glob(f"*{SUFFIX}"))
    if len(files) == 1:
        return replace(row, gguf=files[0].name, problem=gguf.obstacle(files[0]))
    if files:
        problem = f"{name} has {len(files)} GGUF files. Name one of them, as folder/file{SUFFIX}."
    elif found.is_dir():
        problem = f"{name} is a folder that has no config.json. Name a folder that a model was saved to."
    else:
        problem = f"{name} is not on the disk any more, or never was. Put it back, or correct its path."
    return replace(row, problem=problem)


def _adapted(row: ModelSpec, found: Path, base: Callable[[str, Path], ModelSpec]) -> ModelSpec:
    if problem := lora.obstacle(found, row.name):
        return replace(row, problem=problem)
    under = base(lora.base_of(found), found.parent)
    problem = under.problem and f"{row.name} is an adapter, and its base model cannot be used: {under.problem}"
    under = replace(under, name=row.name, label=row.label, licence=row.licence, draft="")
    return replace(under, adapter=str(found), problem=problem)
