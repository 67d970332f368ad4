"""Reads the small files of a model: the chat template, the thinking switch and the context window."""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from parley.settings import is_number

MAX_CONTEXT = 10_000_000  # tokens; a larger number in a config means "not known"
_GENERATION_TAG = re.compile(r"{%-?\s*(end)?generation\s*-?%}")  # a tag of transformers that plain jinja does not know


def default_template(template: Any) -> str:
    """The chat template of a tokenizer, or the one called "default" of several; empty where there is none."""
    if isinstance(template, list):  # the form of several templates in tokenizer_config.json
        template = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else ""


def reads_thinking(template: str) -> bool:
    """Whether a chat template reads `enable_thinking`. The template is parsed, not run."""
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        parsed = environment.parse(_GENERATION_TAG.sub("", template))
    except (TemplateError, RecursionError):  # RecursionError: nested too deeply
        return False
    return "enable_thinking" in meta.find_undeclared_variables(parsed)


def context_length(config: Mapping[str, Any], model_max_length: Any = None) -> int | None:
    """The context window in tokens, from the config and the tokenizer config; None where neither has it."""
    text = config.get("text_config")
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx")
    stated = [*([text.get(names[0])] if isinstance(text, Mapping) else []), *map(config.get, names)]
    by_config = [int(n) for n in stated if _is_context(n)][:1]
    by_tokenizer = [int(model_max_length)] if _is_context(model_max_length) else []
    return min(by_config + by_tokenizer, default=None)


def _is_context(value: Any) -> TypeGuard[float]:
    return is_number(value) and 0 < value < MAX_CONTEXT
