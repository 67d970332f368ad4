"""The models that are named: by the owner, on this disk or on the Hub, and by visitors on the Hub."""

import functools
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from parley.errors import ModelUnavailable, NoSuchModel
from parley.models.formats import local
from parley.models.formats.local import SUFFIX
from parley.models.spec import ModelSpec

Known = Mapping[str, ModelSpec]  # the rows of the table of models, by name
_REVISION = re.compile(r"\w[\w./-]*")
_log = logging.getLogger(__name__)


def named(item: str, known: Known) -> ModelSpec:
    """The spec of a model that the owner names."""
    name, place = local.split(item)
    if (path := local.path(place)) is not None:
        return local.spec(name, path, functools.partial(_base, known))
    row = known.get(place) or on_the_hub(place, known)
    return row if name == place else replace(row, name=name, label=name)


def _base(known: Known, place: str, beside: Path) -> ModelSpec:
    """The base model of an adapter: on this disk, also beside the adapter, or on the Hub."""
    near = beside / Path(place).name
    path = near if local.holds_model(near) else local.path(place)
    if path is not None:
        return local.spec(path.name, path, functools.partial(_base, known))
    try:
        return known.get(place) or on_the_hub(place, known)
    except ModelUnavailable:
        return ModelSpec(place, "", place, problem=f"{Path(place).name[:80]} is neither on this disk nor on the Hub.")


@functools.lru_cache(maxsize=256)
def _warn(problem: str) -> None:
    """Logs a problem of a model once, although the list of models is made for every request."""
    _log.warning("A model is left out: %s", problem)


def offered(rows: list[ModelSpec]) -> dict[str, ModelSpec]:
    """The rows by name, those with a problem last. Raises `ModelUnavailable` where no row can be used."""
    names = [row.name for row in rows]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ModelUnavailable(f"MODEL_IDS names two models {twice!r}. Give one of them a label: label=path.")
    problems = [row.problem for row in rows if row.problem]
    for problem in problems:
        _warn(problem)
    if problems and len(problems) == len(rows):
        raise ModelUnavailable(f"MODEL_IDS: {problems[0]}")
    return {row.name: row for row in sorted(rows, key=lambda row: bool(row.problem))}


def on_the_hub(name: str, known: Known) -> ModelSpec:
    """The spec of a model of the Hub; a row of `known` keeps what is known of it. Raises `ModelUnavailable`.

    Names come from visitors, too, so paths are refused.
    """
    plain, at, revision = name.partition("@")
    well_formed = not at or (_REVISION.fullmatch(revision) is not None and ".." not in revision)
    owner, _, rest = plain.partition("/")
    id, file = (f"{owner}/{rest.partition('/')[0]}", rest.partition("/")[2]) if plain.endswith(SUFFIX) else (plain, "")
    well_formed = well_formed and id.count("/") == 1 and "/" not in file and bool(file) == plain.endswith(SUFFIX)
    try:
        validate_repo_id(id)
    except HFValidationError:
        well_formed = False
    if not well_formed:
        raise NoSuchModel(
            f"{name[:100]!r} is not the name of a model. Write org/name, org/name@revision or org/name/file{SUFFIX}, "
            "as on the Hub."
        )
    if id in known and not file:
        row = known[id]
        return replace(row, name=name, label=f"{row.label} @{revision}", revision=revision) if at else row
    return ModelSpec(name, id, name, revision or None, gguf=file)
