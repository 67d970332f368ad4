"""Reads the small files of a model: the chat template, how it thinks, and the context window."""

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from jinja2 import TemplateError, meta, nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from parley.models.reasoning_dialects import EFFORT, Dialect, ThinkingSwitch, find_dialect, find_efforts, find_switch
from parley.models.tools import dialects
from parley.settings import Settings, is_number

MAX_CONTEXT = 10_000_000  # tokens; a larger number in a config means "not known"
_GENERATION_TAG = re.compile(r"{%-?\s*(end)?generation\s*-?%}")  # a tag of transformers that plain jinja does not know


def default_template(template: Any) -> str:
    """The chat template of a tokenizer, or the one called "default" of several; empty where there is none."""
    if isinstance(template, list):  # the form of several templates in tokenizer_config.json
        template = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else ""


@dataclass(frozen=True)
class ThinkingTraits:
    """How a model thinks, as far as its chat template and the tokens of its tokenizer tell."""

    switch: ThinkingSwitch | None = None
    dialect: Dialect | None = None  # None: no marks of a thought are known
    in_template: bool = False  # whether the template has the marks; models without thoughts may have the tokens
    efforts: tuple[str, ...] = ()  # the levels of `reasoning_effort` that the template takes

    @property
    def always(self) -> bool:
        """Whether the model thinks and nothing switches that off."""
        return not self.switch and (self.in_template or bool(self.efforts))

    @property
    def settings(self) -> list[str]:
        """The names of the settings that say whether and how much the model thinks."""
        return (["thinking"] if self.switch else []) + ([EFFORT] if self.efforts else [])

    def thinks(self, settings: Settings) -> bool:
        """Whether the model thinks with these settings."""
        return settings.thinking or settings.sets_effort or self.always

    def variables(self, settings: Settings) -> dict[str, Any]:
        """The variables of the chat template that make the model think as these settings ask."""
        switched = self.switch.variables(settings.thinking, settings.thinking_budget) if self.switch else {}
        return switched | ({EFFORT: settings.reasoning_effort} if settings.sets_effort else {})


class _Unfolded(ImmutableSandboxedEnvironment):
    """Computes nothing while it looks at a template. Jinja folds constants there, such as a text of 10 GB."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for functions in (self.filters, self.tests):
            for name in functions:
                functions[name] = _of_context


@pass_context
def _of_context(*_: Any) -> str:
    """In the place of a filter or test: what needs a context is not folded."""
    return ""


@functools.lru_cache(maxsize=64)
def _parsed(template: str) -> tuple[frozenset[str], str]:
    """The undeclared variables of a template and its literal text, in parts with NUL between; it is not run."""
    environment = _Unfolded(extensions=["jinja2.ext.loopcontrols"])
    try:
        parsed = environment.parse(_GENERATION_TAG.sub("", template))
        texts = [node.data for node in parsed.find_all(nodes.TemplateData)]
        texts += [node.value for node in parsed.find_all(nodes.Const) if isinstance(node.value, str)]
        variables = frozenset(meta.find_undeclared_variables(parsed))
    except (TemplateError, RecursionError):  # RecursionError: nested too deeply
        return frozenset(), ""
    return variables, "\0".join(texts)


def literal_text(template: str) -> str:
    """The text that a chat template writes or compares with, in parts with NUL between them; it is not run."""
    return _parsed(template)[1]


def thinking_traits(template: str, tokens: Collection[str] = ()) -> ThinkingTraits:
    """How a model with this chat template and these added tokens thinks. The template is parsed, not run."""
    variables, literals = _parsed(template)
    by_template = find_dialect(literals)
    switch = find_switch(variables, literals)
    dialect = by_template or find_dialect("\0".join(tokens))
    return ThinkingTraits(switch, dialect, bool(by_template), find_efforts(variables, literals))


def reads_thinking(template: str) -> bool:
    """Whether a chat template has a thinking switch, by whatever name."""
    return thinking_traits(template).switch is not None


def tool_dialect(template: str) -> str:
    """The name of the dialect in which a model with this chat template calls tools; empty where it takes none."""
    variables, literals = _parsed(template)
    return dialects.find(literals).name if "tools" in variables else ""


def tool_marks(template: str) -> tuple[str, ...]:
    """The marks of the calls of tools of a model with this chat template."""
    name = tool_dialect(template)
    return dialects.DIALECTS[name].marks if name else ()


def context_length(config: Mapping[str, Any], model_max_length: Any = None) -> int | None:
    """The context window in tokens, from the config and the tokenizer config; None where neither has it."""
    text = config.get("text_config")
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
    stated = [*([text.get(names[0])] if isinstance(text, Mapping) else []), *map(config.get, names)]
    by_config = [int(n) for n in stated if _is_context(n)][:1]
    by_tokenizer = [int(model_max_length)] if _is_context(model_max_length) else []
    return min(by_config + by_tokenizer, default=None)


def _is_context(value: Any) -> TypeGuard[float]:
    return is_number(value) and 0 < value < MAX_CONTEXT
