"""What a model's small files say of it: its chat template, its thinking switch and its context window."""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from parley.settings import is_number

MOST_CONTEXT = 10_000_000  # a larger figure stands for "not known"
_GENERATION_TAG = re.compile(r"{%-?\s*(end)?generation\s*-?%}")  # transformers' own tag, unknown to plain jinja


def default_template(template: Any) -> str:
    """The chat template of a tokenizer, which may have several with names; empty where there is none."""
    if isinstance(template, list):  # as tokenizer_config.json writes them
        template = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else ""


def reads_thinking(template: str) -> bool:
    """Whether a chat template has the switch `enable_thinking`. The template is parsed, not run."""
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        parsed = environment.parse(_GENERATION_TAG.sub("", template))
    except (TemplateError, RecursionError):  # the latter where it is nested too deep
        return False
    return "enable_thinking" in meta.find_undeclared_variables(parsed)


def context_length(config: Mapping[str, Any], model_max_length: Any = None) -> int | None:
    """How many tokens a model reads, by its configuration and its tokenizer's; None where neither says."""
    text = config.get("text_config")
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx")
    stated = [*([text.get(names[0])] if isinstance(text, Mapping) else []), *map(config.get, names)]
    by_config = [int(n) for n in stated if _is_context(n)][:1]
    by_tokenizer = [int(model_max_length)] if _is_context(model_max_length) else []
    return min(by_config + by_tokenizer, default=None)


def _is_context(value: Any) -> TypeGuard[float]:
    return is_number(value) and 0 < value < MOST_CONTEXT
