"""Why a model could not be loaded, as sentences for the reader. The files are strangers': none of it is a bug here."""

import logging
from collections.abc import Sequence

from parley.errors import ModelUnavailable
from parley.models.spec import ModelSpec

_log = logging.getLogger(__name__)


class Unloadable(ModelUnavailable):
    """A failure that a damaged file may explain."""


class EngineRefused(Exception):
    """OpenVINO cannot run a model that it was planned for: another engine has to answer."""


def needs_code(spec: ModelSpec) -> ModelUnavailable:
    """For a model with Python code of its own."""
    return ModelUnavailable(
        f"{spec.label} needs Python code from its own repository, which is never run here. Choose another model."
    )


def unsuitable(spec: ModelSpec, part: str, error: Exception) -> ModelUnavailable:
    """For a `part` that its library cannot load, whatever `error` it raises."""
    _log.warning("%s has %s that cannot be loaded", spec.name, part, exc_info=error)
    return Unloadable(f"{spec.label} has {part} that cannot be loaded ({type(error).__name__}). Choose another model.")


def incomplete(spec: ModelSpec, names: Sequence[str]) -> Unloadable:
    """For missing tensors, by their `names`."""
    return Unloadable(
        f"{spec.label} is incomplete: {len(names)} of its tensors are missing, {names[0][:80]} for one. "
        "Choose another model."
    )


def not_finite(spec: ModelSpec) -> Unloadable:
    """For weights, or logits, that are NaN or infinite."""
    return Unloadable(
        f"{spec.label} computes numbers that are not finite: its weights are spoilt. Choose another model."
    )


def too_large(spec: ModelSpec) -> ModelUnavailable:
    """For a model that was expected to fit the memory, and did not."""
    return ModelUnavailable(f"{spec.label} does not fit the memory. Choose a smaller model.")
