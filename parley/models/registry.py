"""The models that can be chosen: those of `MODEL_IDS`, or those of this table that suit the hardware.

The models of `REMOTE_MODELS` are added in both cases. `DRAFT_MODELS`, "target=draft,…", names draft models.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import build_hf_headers, get_session

from parley.config import ALLOW_ANY_MODEL, DRAFT_MODELS, MODEL_IDS
from parley.errors import ModelUnavailable
from parley.models import hardware, hub, load_plan, remote_servers
from parley.models.capabilities import PARROT
from parley.models.formats import gguf, local, names
from parley.models.spec import ModelSpec
from parley.models.traits import context_length, default_template, thinking_traits
from parley.settings import OPTIONS, is_number
from parley.strategies.requirements import RECURRENT, STATEFUL, ModelTraits

BUDGIE = Path(__file__).parents[1] / "budgie"
APACHE = "Apache-2.0"
TIMEOUT_SECONDS = 3.0  # for each small file that is read from the Hub before a model is loaded
SMALL_FILES = (
    *("config.json", "generation_config.json", "tokenizer_config.json"),
    *("chat_template.jinja", "chat_template.json"),
)

# The tiers of models for each kind of hardware. ZeroGPU holds all models on one GPU of 48 GB, so there are few of
# them, of many families.
TIERS: dict[str, tuple[str, ...]] = {
    "cpu": ("any", "cpu"),
    "gpu-16": ("any", "zerogpu", "gpu-16"),
    "gpu-48": ("any", "zerogpu", "gpu-16", "gpu-48"),
    "zerogpu": ("any", "zerogpu"),
}


def _hub(id: str, label: str, parameters: int, bytes: int, tier: str, **rest: Any) -> ModelSpec:
    known: dict[str, Any] = {"licence": APACHE, "thinking": False} | rest
    return ModelSpec(id, id, label, parameters=parameters, bytes=bytes, tier=tier, **known)


def _bundled(name: str, label: str, folder: Path, draft: str = "") -> ModelSpec:
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    # Two bytes for each parameter. The model card has the exact number.
    known: dict[str, Any] = {
        "parameters": size // 2,
        "bytes": size,
        "licence": APACHE,
        "thinking": True,
        "draft": draft,
    }
    return ModelSpec(name, str(folder), label, **known)


SMALL_SMOLLM, SMALL_QWEN = "HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen3-0.6B"

# Sizes are those of the safetensors files; rounded where the last digits are zeros.
MODELS: tuple[ModelSpec, ...] = (
    _bundled("budgie", "Budgie (bundled)", BUDGIE / "weights", draft="budgie-draft"),
    ModelSpec(
        "parrot", "", "Parrot (repeats you)", licence=APACHE, thinking=False, engine="parrot", capabilities=PARROT
    ),
    _hub(SMALL_SMOLLM, "SmolLM2 135M", 134_515_008, 269_060_552, "cpu"),
    _hub("HuggingFaceTB/SmolLM2-360M-Instruct", "SmolLM2 360M", 361_821_120, 723_674_912, "cpu"),
    _hub(SMALL_QWEN, "Qwen3 0.6B", 596_049_920, 1_503_300_000, "cpu", thinking=True),
    _hub("allenai/OLMo-2-0425-1B-Instruct", "OLMo 2 1B", 1_484_916_736, 2_970_000_000, "cpu"),
    _hub(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct", "SmolLM2 1.7B", 1_711_376_384, 3_422_800_000, "cpu", draft=SMALL_SMOLLM
    ),
    _hub("Qwen/Qwen3-1.7B", "Qwen3 1.7B", 1_720_574_976, 4_063_500_000, "cpu", thinking=True, draft=SMALL_QWEN),
    _hub("HuggingFaceTB/SmolLM3-3B", "SmolLM3 3B", 3_075_098_624, 6_150_200_000, "zerogpu", thinking=True),
    _hub("Qwen/Qwen3-4B-Instruct-2507", "Qwen3 4B", 4_022_468_096, 8_044_900_000, "zerogpu"),
    _hub("ibm-granite/granite-4.1-3b", "Granite 4.1 3B", 3_400_000_000, 6_800_000_000, "zerogpu"),
    _hub("microsoft/Phi-4-mini-instruct", "Phi-4 mini", 3_836_021_760, 7_672_000_000, "gpu-16", licence="MIT"),
    _hub("Qwen/Qwen3-8B", "Qwen3 8B", 8_190_735_360, 16_381_500_000, "gpu-48", thinking=True, draft=SMALL_QWEN),
    _hub("allenai/Olmo-3-7B-Instruct", "Olmo 3 7B", 7_298_011_136, 14_596_000_000, "gpu-48"),
)
DRAFT = _bundled("budgie-draft", "Budgie's draft", BUDGIE / "draft")  # it cannot be chosen, so it is not in the table
_BY_NAME = {spec.name: spec for spec in (*MODELS, DRAFT)}


@dataclass(frozen=True)
class Traits:
    """The traits of a model that are known before it is loaded."""

    recommended: Mapping[str, Any]  # settings from its generation_config.json, within the bounds of `Settings`
    thinking: bool
    context: int | None  # tokens
    chats: bool = True  # whether it has a chat template, as far as is known
    always_thinks: bool = False  # whether it thinks although thinking is off
    layers: int | None = None
    stateful: bool = False  # see `requirements.STATEFUL`
    recurrent: bool = False
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)  # its config.json


def models(environ: Mapping[str, str] = os.environ) -> dict[str, ModelSpec]:
    """The models that can be chosen, by name, in the order of the dropdown; the first is the default.

    The models that the owner names come first. A remote model replaces a local one of the same name.
    Raises `ModelUnavailable` for wrong values of `MODEL_IDS` and the `REMOTE_` variables.
    """
    remote_models = remote_servers.models(environ)
    if wanted := MODEL_IDS.read(environ):
        rows = [remote_models.get(name) or names.named(name, _BY_NAME) for name in wanted]
        return names.offered(rows) | remote_models
    tiers = TIERS["zerogpu" if environ.get("SPACES_ZERO_GPU") else hardware.tier()]
    return remote_models | {
        spec.name: spec for spec in MODELS if spec.tier in tiers and spec.name not in remote_models
    }


def find(name: str, environ: Mapping[str, str] = os.environ) -> ModelSpec:
    """The model of that name; the default model for an empty name. Raises `ModelUnavailable`.

    With ALLOW_ANY_MODEL=1, and not on a Space, also any model of the Hub. Paths are refused, because names come from
    visitors.
    """
    specs = models(environ)
    if not name:
        return next(iter(specs.values()))
    if name in specs and specs[name].problem:
        raise ModelUnavailable(specs[name].problem)
    if name in specs:
        return specs[name]
    if allows_any(environ):
        return names.on_the_hub(name, _BY_NAME)
    raise ModelUnavailable(f"There is no model called {name[:100]!r} here. The models are: {', '.join(specs)}.")


def allows_any(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether visitors may name any model of the Hub. Never on a Space, because they could fill its disk."""
    return ALLOW_ANY_MODEL.read(environ) and not environ.get("SPACE_ID")


def draft_of(spec: ModelSpec, environ: Mapping[str, str] = os.environ) -> ModelSpec | None:
    """The draft model for this one: that of `DRAFT_MODELS`, or that of the table.

    Raises `ModelUnavailable` for wrong values of `DRAFT_MODELS`.
    """
    drafts = {local.split(target)[0]: draft for target, draft in DRAFT_MODELS.read(environ).items()}
    if named := drafts.get(spec.name):
        return _usable(names.named(named, _BY_NAME))
    return _BY_NAME[spec.draft] if spec.draft else None


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
        same = True if draft.name == spec.draft else _same_vocabulary(spec, draft)
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
        return Traits({o.name: o.neutral for o in unknown}, thinking="thinking" in supported, context=None)
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
    config, template = header.config(), header.metadata.get("tokenizer.chat_template")
    thinking = thinking_traits(template if isinstance(template, str) else "")
    return Traits(
        recommended={},
        thinking=thinking.switch is not None,
        always_thinks=thinking.always,
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


def _same_vocabulary(spec: ModelSpec, other: ModelSpec) -> bool | None:
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
