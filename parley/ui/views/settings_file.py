"""The settings as a file: the `generation_config.json` of transformers, saved and opened by settings_file.js.

What transformers knows has its name and its meaning there, so that `generate` with the file does what the strategy
does as far as transformers can. Every other setting stands beside it under its own name, and `GenerationConfig` keeps
it as an attribute. Null is the value without effect.
"""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from parley import strategies
from parley.errors import BadSetting, ModelUnavailable
from parley.models import registry
from parley.models.formats.config_fields import OFF, UNUSED, config_fields
from parley.settings import OPTIONS, Settings
from parley.strategies import STRATEGIES, Strategy
from parley.strategies.registry import CONSTANT_DRAFTS
from parley.ui.views import conversations

NAME = "generation_config.json"
# Settings that have another name in transformers. Each strategy has one of these fields at most.
RENAMED = {
    "stop": ("stop_strings",),
    "candidates": ("top_k",),
    "beam_groups": ("num_beam_groups",),
    "draft_tokens": ("num_assistant_tokens", "prompt_lookup_num_tokens"),
    "matching_ngram": ("max_matching_ngram_size",),
    "exit_layer": ("assistant_early_exit",),
}
# What a file without the name of a strategy asks for: the first of these fields that it has.
SIGNS = {
    "prompt_lookup_num_tokens": "prompt_lookup",
    "assistant_early_exit": "early_exit",
    "dola_layers": "dola",
    "penalty_alpha": "contrastive",
    "num_beam_groups": "diverse_beams",
}
# What a file has beside settings: what the model brings, and what follows from the strategy.
BESIDE = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"}
BESIDE |= {"do_sample", "num_beams", "watermarking_config", *CONSTANT_DRAFTS}
OF_STRATEGIES = {name for row in STRATEGIES.values() for name in row.uses}


def write(settings: Settings) -> dict[str, Any]:
    """The fields of the file: all that `generate` has to know, and all settings that the strategy uses."""
    chosen, runs = strategies.find(settings.strategy), settings.effective_strategy
    fields = {name: value for name, value in config_fields(runs, settings).items() if value is not None}
    if (mark := runs.mark(settings)) and mark.in_files:
        fields["watermarking_config"] = mark.to_dict()
    for name in filter(lambda name: _has(chosen, name), OPTIONS):
        value, others = getattr(settings, name), RENAMED.get(name, ())
        if name == "stop":
            fields["stop_strings"] = list(settings.stop_strings) or None
        elif not any(other in fields for other in others):
            fields[next(iter(others), name)] = None if name in OFF and OFF[name] == value else value
    return {"strategy": settings.strategy, **fields}


def read(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings of a file, unchecked, and the names in it that are not used."""
    name = _sought(fields) if fields.get("strategy") is None else fields["strategy"]
    row = STRATEGIES.get(name) if isinstance(name, str) else None
    values = {} if name is None else {"strategy": name}
    renamed = {n: next((o for o in others if o in fields), "") for n, others in RENAMED.items()}
    renamed = {n: other for n, other in renamed.items() if other and (row is None or _has(row, n)) and n not in fields}
    derived = set(row.config(Settings.check({}))) if row else set()
    for n in OPTIONS:
        key = renamed.get(n, n)
        if n == "strategy" or key not in fields or (key == n and n in renamed.values()):
            continue
        value = fields[key]
        unused = row is not None and not _has(row, n)
        if unused and (n in derived or value is None or value == UNUSED.get(n)):
            continue
        values[n] = OPTIONS[n].neutral if value is None else value
    known = {*OPTIONS, *BESIDE, *UNUSED, *renamed.values(), *derived}
    return values, sorted(set(fields) - known)


def _has(row: Strategy, name: str) -> bool:
    """Whether a file of this strategy has the setting."""
    return name in row.uses or name not in OF_STRATEGIES


def _sought(fields: Mapping[str, Any]) -> str | None:
    """The strategy that transformers would run with these fields; None where they do not say."""
    for sign, name in SIGNS.items():
        if fields.get(sign):
            return name
    beams, samples = fields.get("num_beams"), fields.get("do_sample")
    if isinstance(beams, int) and beams > 1:
        return "beam_sampling" if samples else "beams"
    return None if samples is None and beams is None else "sampling" if samples else "greedy"


def save(text: str) -> str:
    """The file with the settings of this JSON; or, as JSON too, what is to be said in its place."""
    try:
        values = conversations.values_of(text)  # an empty number of the page is an empty text
        settings = Settings.check({name: conversations.typed(name, value) for name, value in values.items()})
    except BadSetting as refusal:
        return json.dumps({"notice": str(refusal)})
    return json.dumps({"file": json.dumps(write(settings), indent=2, ensure_ascii=False) + "\n"})


def open_file(text: str) -> list[Any]:
    """An update for each control, and what is to be said, as JSON. `text` is JSON: the `fields` of a file, and the
    settings `now`, of which all stay that the file does not have.
    """
    given = conversations.values_of(text)
    fields, now = given.get("fields"), given.get("now")
    if not isinstance(fields, dict) or not isinstance(now, dict):
        fields, now = {}, {}
    values, others = read(fields)
    if not values:
        return [*(gr.skip() for _ in OPTIONS), json.dumps({"notice": conversations.TEXTS["unreadable"]})]
    kept, refused = conversations.checked(values)
    try:
        registry.find(kept.get("model", ""))
    except ModelUnavailable as refusal:
        refused.append(str(refusal))
        del kept["model"]
    updates, more = conversations.for_values(now | kept)
    said = {"notice": " ".join(dict.fromkeys([*refused, *more])), "others": ", ".join(others), "opened": bool(kept)}
    return [*updates, json.dumps(said)]


def add(inputs: Mapping[str, Component]) -> None:
    """Adds the events, which settings_file.js starts."""
    hidden: dict[str, Any] = {"visible": "hidden"}
    private: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    given, saved, opened = (gr.Textbox(**hidden) for _ in range(3))
    buttons = {name: gr.Button(name, elem_id=name, **hidden) for name in ("save-settings", "open-settings")}
    buttons["save-settings"].click(save, given, saved, js="settingsFile.present", **private).then(
        None, saved, None, js="settingsFile.saved", **private
    )
    outputs = [*inputs.values(), opened]
    opening = buttons["open-settings"].click(open_file, given, outputs, js="settingsFile.given", **private)
    opening.success(None, opened, None, js="settingsFile.opened", **private)
    opening.failure(None, None, None, js="settingsPanel.allArrived", **private)
