"""Errors of loading a model, as sentences for the visitor. Model files come from strangers; a bad file is no bug."""

import logging
from collections.abc import Sequence

from parley.errors import ModelUnavailable
from parley.models.spec import ModelSpec

_log = logging.getLogger(__name__)


class Unloadable(ModelUnavailable):
    """A failure that a damaged file can cause."""


class NotFinite(ValueError):
    """A tensor of a model, or its logits, hold NaN or infinity."""


class EngineRefused(Exception):
    """OpenVINO cannot run a model although the load plan chose it. Another engine has to run the model."""


def needs_code(spec: ModelSpec) -> ModelUnavailable:
    """The error for a model that needs Python code from its own repository."""
    return ModelUnavailable(
        f"{spec.label} needs Python code from its own repository, which is never run here. Choose another model."
    )


def unsuitable(spec: ModelSpec, part: str, error: Exception) -> ModelUnavailable:
    """The error for a `part` that its library cannot load. `error` is what the library raises."""
    _log.warning("%s has %s that cannot be loaded", spec.name, part, exc_info=error)
    return Unloadable(f"{spec.label} has {part} that cannot be loaded ({type(error).__name__}). Choose another model.")


def template_fails(spec: ModelSpec, error: Exception) -> ModelUnavailable:
    """The error for a chat template that cannot render a first question. `error` is what it raises."""
    _log.warning("%s has a chat template that cannot be rendered", spec.name, exc_info=error)
    cause = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".: ")[:300]
    return Unloadable(f"{spec.label} has a chat template that cannot be rendered ({cause}). Choose another model.")


def template_explodes(spec: ModelSpec, limit: str) -> ModelUnavailable:
    """The error for a chat template that goes beyond this `limit`."""
    return ModelUnavailable(
        f"{spec.label} has a chat template that takes more than {limit} for a short conversation. "
        "Choose another model."
    )


def incomplete(spec: ModelSpec, names: Sequence[str]) -> Unloadable:
    """The error for missing tensors with these `names`."""
    return Unloadable(
        f"{spec.label} is incomplete: {len(names)} of its tensors are missing, for example {names[0][:80]}. "
        "Choose another model."
    )


def not_finite(spec: ModelSpec) -> Unloadable:
    """The error for weights, or logits, that are NaN or infinite."""
    return Unloadable(
        f"{spec.label} computes numbers that are not finite: its weights are damaged. Choose another model."
    )


def too_large(spec: ModelSpec) -> ModelUnavailable:
    """The error for a model that was planned to fit the memory, but does not."""
    return ModelUnavailable(f"{spec.label} does not fit the memory. Choose a smaller model.")
