"""The models that can be chosen: those of `MODEL_IDS`, or those of the catalogue that suit the hardware.

The models of `REMOTE_MODELS` are added in both cases. `DRAFT_MODELS`, "target=draft,…", names draft models.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import build_hf_headers, get_session

from parley.config import ALLOW_ANY_MODEL, DRAFT_MODELS, MODEL_IDS
from parley.errors import ModelUnavailable, NoSuchModel, instead_of
from parley.models import hardware, hub, load_plan, remote_servers
from parley.models.catalogue import default as default_model
from parley.models.catalogue.rows import ADDED, BUDGIE, DRAFT, MODELS, TIERS, TOY
from parley.models.formats import gguf, local, names
from parley.models.reasoning_dialects import LEVELS
from parley.models.spec import ModelSpec
from parley.models.traits import context_length, default_template, thinking_traits, tool_dialect
from parley.settings import OPTIONS, is_number
from parley.strategies.requirements import RECURRENT, STATEFUL, ModelTraits

TIMEOUT_SECONDS = 3.0  # for each small file that is read from the Hub before a model is loaded
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json")
SMALL_FILES = (*_CONFIGS, "chat_template.jinja", "chat_template.json")

_BY_NAME = {spec.name: spec for spec in (*MODELS, DRAFT)}
_decided: dict[str, ModelSpec] = {}  # the default of the catalogue for each kind of hardware, once it is decided
__all__ = ["BUDGIE", "DRAFT", "MODELS", "TIERS"]  # of the catalogue, for who looks for them here


@dataclass(frozen=True)
class Traits:
    """The traits of a model that are known before it is loaded."""

    recommended: Mapping[str, Any]  # settings from its generation_config.json, within the bounds of `Settings`
    thinking: bool
    context: int | None  # tokens
    chats: bool = True  # whether it has a chat template, as far as is known
    always_thinks: bool = False  # whether it thinks although thinking is off
    efforts: tuple[str, ...] = ()  # the levels of reasoning effort that its chat template takes
    tools: str = ""  # the dialect in which it calls tools, see `models.tools`; empty where it takes none
    layers: int | None = None
    stateful: bool = False  # see `requirements.STATEFUL`
    recurrent: bool = False
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)  # its config.json


def models(environ: Mapping[str, str] = os.environ) -> dict[str, ModelSpec]:
    """The models that can be chosen, by name, in the order of the dropdown.

    The models that the owner names come first, then real models, then toys, then those of `ADDED`. A remote model
    replaces a local one of the same name.
    Raises `ModelUnavailable` for wrong values of `MODEL_IDS` and the `REMOTE_` variables.
    """
    remote_models = remote_servers.models(environ)
    if wanted := MODEL_IDS.read(environ):
        rows = [remote_models.get(name) or names.named(name, _BY_NAME) for name in wanted]
        return names.offered(rows) | remote_models | ADDED
    rows = _catalogue(_hardware(environ))
    return remote_models | {spec.name: spec for spec in rows if spec.name not in remote_models} | ADDED


def default(environ: Mapping[str, str] = os.environ) -> ModelSpec:
    """The model for who names none: the first that the owner names, else the one that `decide_default` has chosen.

    Raises `ModelUnavailable` as `models` does.
    """
    if named := first_named(environ):
        return named
    if (where := _hardware(environ)) not in _decided:
        decide_default(environ=environ)
    return _decided[where]


def decide_default(
    loads: Callable[[ModelSpec], bool] = lambda spec: True, environ: Mapping[str, str] = os.environ
) -> None:
    """Decides, for as long as this process runs, which model of the catalogue is the default.

    It is the first of `default.candidates` that `loads` loads.
    """
    where = _hardware(environ)
    _decided[where] = next(filter(loads, default_model.candidates(_catalogue(where), where)), TOY)


def to_download(environ: Mapping[str, str] = os.environ) -> ModelSpec | None:
    """The real model to offer while Budgie is the default; None where nothing can be downloaded."""
    where = _hardware(environ)
    return default_model.to_download(_catalogue(where), where)


def lacks_real_model(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether Budgie is the default because no real model is on this disk."""
    return _hardware(environ) != "zerogpu" and not first_named(environ) and default(environ) is TOY


def first_named(environ: Mapping[str, str] = os.environ) -> ModelSpec | None:
    """The first model of `MODEL_IDS` and `REMOTE_MODELS`; None where the catalogue decides."""
    named = MODEL_IDS.read(environ) or remote_servers.models(environ)
    return next(iter(models(environ).values())) if named else None


def _catalogue(where: str) -> list[ModelSpec]:
    """The rows that suit this kind of hardware. On ZeroGPU real models on the CPU come after those on the GPU."""
    if where != "zerogpu":
        return [spec for spec in MODELS if spec.tier in TIERS[where]]
    rows = [spec for spec in MODELS if spec.tier in TIERS[where] or spec.cpu_on_zerogpu]
    return sorted(rows, key=lambda spec: (spec.tier == "any", spec.tier != "any" and spec.cpu_on_zerogpu))


def _hardware(environ: Mapping[str, str]) -> str:
    return "zerogpu" if environ.get("SPACES_ZERO_GPU") else hardware.tier()


def find(name: str, environ: Mapping[str, str] = os.environ) -> ModelSpec:
    """The model of that name; the default for an empty name. Raises `ModelUnavailable`.

    With ALLOW_ANY_MODEL=1, and not on a Space, also any model of the Hub. Paths are refused, because names come from
    visitors.
    """
    specs = models(environ)
    if not name:
        return default(environ)
    if name in specs and specs[name].problem:
        raise ModelUnavailable(specs[name].problem)
    if name in specs:
        return specs[name]
    if allows_any(environ):
        return names.on_the_hub(name, _BY_NAME)
    other = instead_of(name, specs)
    sentence = f"There is no model called {name[:100]!r} here.{other} The models are: {', '.join(specs)}."
    raise NoSuchModel(sentence, name="model", valid=list(specs))


def allows_any(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether visitors may name any model of the Hub. Never on a Space, because they could fill its disk."""
    return ALLOW_ANY_MODEL.read(environ) and not environ.get("SPACE_ID")


def draft_of(spec: ModelSpec, environ: Mapping[str, str] = os.environ) -> ModelSpec | None:
    """The draft model for this one: that of `DRAFT_MODELS`, or that of the table.

    On ZeroGPU it computes where this one does. Raises `ModelUnavailable` for wrong values of `DRAFT_MODELS`.
    """
    drafts = {local.split(target)[0]: draft for target, draft in DRAFT_MODELS.read(environ).items()}
    named = drafts.get(spec.name)
    draft = _usable(names.named(named, _BY_NAME)) if named else _BY_NAME[spec.draft] if spec.draft else None
    if draft and environ.get("SPACES_ZERO_GPU"):
        return replace(draft, cpu_on_zerogpu=spec.cpu_on_zerogpu)
    return draft


def check_drafts(environ: Mapping[str, str] = os.environ) -> None:
    """Raises `ModelUnavailable` for wrong values of `DRAFT_MODELS`, also for models that are not offered."""
    for draft in DRAFT_MODELS.read(environ).values():
        _usable(names.named(draft, _BY_NAME))


def _usable(spec: ModelSpec) -> ModelSpec:
    if spec.problem:
        raise ModelUnavailable(f"DRAFT_MODELS: {spec.problem}")
    return spec


def strategy_traits(spec: ModelSpec, known: Traits | None = None) -> ModelTraits:
    """The traits that decide which strategies this model can use, as far as its small files tell."""
    known, draft = known or traits(spec), draft_of(spec)
    same = None
    if draft:
        same = True if draft.name == spec.draft else same_vocabulary(spec, draft)
    strategies = spec.capabilities.strategies
    label = draft.label if draft else ""
    return ModelTraits(spec.label, known.layers, known.stateful, known.recurrent, label, same, strategies)


def traits(spec: ModelSpec) -> Traits:
    """The traits from the model's small files, in its folder, in the cache or on the Hub; otherwise from its spec.

    Network errors are not raised. Waits at most a few seconds for the network, and stores nothing on the disk.
    """
    if spec.engine == "remote":
        supported = spec.capabilities.settings
        unknown = [o for o in OPTIONS.values() if o.neutral != o.default and o.name not in supported]
        return Traits(
            {o.name: o.neutral for o in unknown}, thinking="thinking" in supported, efforts=LEVELS, context=None
        )
    if spec.gguf:
        return _gguf_traits(spec)
    files = _small_files(spec)
    settings, config = _json(files.get("tokenizer_config.json")), _json(files.get("config.json"))
    text = config.get("text_config")
    text = text if isinstance(text, dict) else config
    layers, kinds = text.get("num_hidden_layers"), text.get("layer_types")
    written = settings.get("chat_template") or _json(files.get("chat_template.json")).get("chat_template")
    template = files.get("chat_template.jinja") or default_template(written)
    thinking = thinking_traits(template)
    chats = bool(template) or not settings or "chat_template" in settings
    recommended = recommended_settings(_json(files.get("generation_config.json")))
    return Traits(
        recommended=recommended if chats else recommended | {"mode": "plain text"},
        chats=chats,
        thinking=thinking.switch is not None if template else bool(spec.thinking),
        always_thinks=thinking.always,
        efforts=thinking.efforts,
        tools=tool_dialect(template),
        context=context_length(config, settings.get("model_max_length")),
        layers=layers if isinstance(layers, int) else None,
        stateful=str(config.get("model_type")) in STATEFUL,
        recurrent=not RECURRENT.isdisjoint(map(str, kinds) if isinstance(kinds, list) else ()),
        config=config,
    )


def _gguf_traits(spec: ModelSpec) -> Traits:
    """The traits from the header of a GGUF file; those of the spec where it is not on this disk or damaged."""
    header = _gguf_header(spec)
    if header is None:
        return Traits({}, thinking=bool(spec.thinking), context=None)
    config, template = header.config(), str(header.metadata.get("tokenizer.chat_template") or "")
    thinking = thinking_traits(template)
    return Traits(
        recommended={},
        thinking=thinking.switch is not None,
        always_thinks=thinking.always,
        efforts=thinking.efforts,
        tools=tool_dialect(template),
        context=context_length(config),
        layers=config.get("num_hidden_layers"),
        config=config,
    )


def _gguf_header(spec: ModelSpec) -> gguf.Header | None:
    cached = spec.folder or try_to_load_from_cache(spec.id, spec.gguf, revision=spec.revision)
    file = spec.folder / spec.gguf if spec.folder else Path(cached) if isinstance(cached, str) else None
    try:
        return gguf.header(file) if file else None
    except (ModelUnavailable, OSError):  # loading the model will report it
        return None


def recommended_settings(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a generation_config.json as settings, within the bounds of `Settings`."""
    found: dict[str, Any] = {}
    if isinstance(sample := generation.get("do_sample"), bool):
        found["strategy"] = "sampling" if sample else "greedy"
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        value, o = generation.get(name), OPTIONS[name]
        if is_number(value) and o.low is not None and o.high is not None:
            found[name] = o.kind(min(max(value, o.low), o.high))
    return found


def estimate(
    spec: ModelSpec, available_bytes: Callable[[load_plan.LoadPlan], int], known: Traits | None = None, **options: Any
) -> load_plan.LoadEstimate | None:
    """Whether and how this model would run here, by `choose_load_plan`, which also decides when the model is loaded.

    `available_bytes` and `options` are arguments of that function. None for a model without local weights or with a
    problem, and where the size of the weights is not known now.
    """
    if spec.engine != "local" or spec.problem:
        return None
    known = known or traits(spec)
    try:
        size = spec.bytes or (_bytes(spec) if known.config else None)
    except ModelUnavailable:  # loading the model will report the error
        size = None
    return load_plan.choose_load_plan(spec, known.config, size, available_bytes, **options) if size else None


@functools.lru_cache(maxsize=256)
def _read_from_hub(spec: ModelSpec) -> Mapping[str, str]:
    """The texts of the small files that the model has on the Hub. Exceptions are not cached."""
    headers = build_hf_headers()
    texts = {}
    for name in SMALL_FILES:
        url = hf_hub_url(spec.id, name, revision=spec.revision)
        response = get_session().get(url, headers=headers, timeout=TIMEOUT_SECONDS)
        if response.status_code != 404:
            texts[name] = response.raise_for_status().text
    return texts


@functools.lru_cache(maxsize=256)
def _bytes(spec: ModelSpec) -> int:
    """The size of its weights, in its folder or on the Hub. Exceptions are not cached."""
    if spec.gguf:
        header = _gguf_header(spec)
        return header.converted_bytes if header else 0
    return hub.find(spec, TIMEOUT_SECONDS).weights_bytes


def _folder(spec: ModelSpec) -> Path | None:
    """The folder of a model's files if they are on this disk; None if they are not."""
    if spec.folder or not spec.id:
        return spec.folder
    cached = try_to_load_from_cache(spec.id, "config.json", revision=spec.revision)
    return Path(cached).parent if isinstance(cached, str) else None


def have_one_tokenizer(specs: Sequence[ModelSpec]) -> bool:
    """Whether the tokens of all these models are known to be the same."""
    first, *others = dict.fromkeys(specs)
    return all(same_vocabulary(first, each) for each in others)


def same_vocabulary(spec: ModelSpec, other: ModelSpec) -> bool | None:
    """Whether both models have the same tokens with the same ids; None where a file is missing."""
    files = [folder / "tokenizer.json" for each in (spec, other) if (folder := _folder(each))]
    if len(files) < 2 or not all(path.is_file() for path in files):
        return None
    return len({_vocabulary(path, path.stat().st_mtime_ns) for path in files}) == 1


@functools.lru_cache(maxsize=64)
def _vocabulary(path: Path, _: int) -> int:
    """A hash of all tokens and their ids."""
    tokenizer = _json(path.read_text("utf-8", "replace"))
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    tokens = [model.get("vocab") if isinstance(model, dict) else None, added]
    return hash(json.dumps(tokens, sort_keys=True))


def _small_files(spec: ModelSpec) -> Mapping[str, str]:
    folder = _folder(spec)
    if folder is not None:
        held = [name for name in SMALL_FILES if (folder / name).is_file()]
        return {name: (folder / name).read_text("utf-8-sig", "replace") for name in held}
    try:
        return _read_from_hub(spec) if spec.id else {}
    except (HTTPError, OSError):  # no network, no such model or no access; loading the model will report it
        return {}


def _json(text: str | None) -> dict[str, Any]:
    """The object in an untrusted JSON file; empty for anything else."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
