"""Loads a model of the registry: checks it before and after the download, and never runs code from its repository."""

import codecs
import functools
import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parley.engines import load_errors
from parley.engines.load_errors import EngineRefused, Unloadable
from parley.errors import ModelUnavailable, NoRoom
from parley.events import STATUSES, Report
from parley.models import hardware, hub, load_plan, traits
from parley.models.formats import gguf, lora, template_trial
from parley.models.load_plan import LoadEstimate, LoadPlan
from parley.models.precision import OPENVINO
from parley.models.spec import ModelSpec

if TYPE_CHECKING:  # importing torch takes seconds; the page must be served before that
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from parley.engines.checkpoint import Checkpoint
    from parley.generation.loaded_model import LoadedModel

_log = logging.getLogger(__name__)
_BUNDLED = Path(__file__).parents[1]  # the models there are no strangers'


def load(
    spec: ModelSpec,
    report: Report,
    cancel: threading.Event,
    *,
    available_bytes: Callable[[LoadPlan], int] | None = None,
    disk: Callable[[], int] = hardware.free_disk,
    source: hub.Source | None = None,
) -> "LoadedModel":
    """Loads a model; downloads it first if needed, and downloads a damaged file a second time.

    `source` says where its files are; without it the Hub is asked. `available_bytes` takes a plan, may free memory for
    it, and returns the number of free bytes; `disk` returns the free bytes on the disk. Raises `ModelUnavailable`,
    also its subclass `hub.LoadingStopped`.
    """
    report(STATUSES["looking"].format(model=spec.label))
    source = source or hub.find(spec)
    available_bytes = available_bytes or (lambda plan: hardware.free_memory(plan.cards))
    try:
        return _load(source, report, cancel, available_bytes, disk)
    except Unloadable as error:
        if not source.purge_damaged():
            raise
        _log.warning("A file of %s is damaged and is downloaded again", spec.name, exc_info=error)
    try:
        return _load(source, report, cancel, available_bytes, disk)
    except Unloadable as error:
        if damaged := source.purge_damaged():
            raise ModelUnavailable(
                f"{damaged[0]} of {spec.label} was damaged after two downloads. "
                "Try again later, or choose another model."
            ) from error
        raise


def _load(
    source: hub.Source,
    report: Report,
    cancel: threading.Event,
    available_bytes: Callable[[LoadPlan], int],
    disk: Callable[[], int],
) -> "LoadedModel":
    from parley.engines.checkpoint import Checkpoint
    from parley.generation import template_probe
    from parley.generation.loaded_model import LoadedModel

    # 1. The small files. They suffice to reject a model before its weights are downloaded.
    spec = source.spec
    folder = source.fetch(hub.SMALL, report, cancel, disk)
    source, folder, size = _opened(source, folder)
    config = _read(spec, folder / "config.json")
    generation = _read(spec, folder / "generation_config.json", required=False)  # transformers ignores a damaged one
    _check_architecture(spec, config)
    tokenizer = _tokenizer(spec, folder)
    choose = functools.partial(load_plan.choose_load_plan, spec, config, size, available_bytes)
    plan = _fitting(choose())

    # 2. The weights.
    if not spec.gguf:
        folder = source.fetch((*hub.SMALL, *source.weights), report, cancel, disk)
    if cancel.is_set():
        raise hub.stopped(spec)
    report(STATUSES["loading"].format(model=spec.label))
    if plan.engine != OPENVINO and plan.device == "cpu":
        _log.info("Transformers runs %s: %s", spec.name, load_plan.engine_obstacle(config, hardware.machine()))
    model, plan = _model(Checkpoint(spec, folder), plan, choose, report=report, cancel=cancel)
    form = template_probe.probe(tokenizer)
    _neutralise(model, tokenizer, [] if generation.get("eos_token_id") is not None else form.ends)

    # 3. A test generation. On ZeroGPU there is a GPU only during a turn, so the test runs on the CPU.
    if not plan.placed and not os.environ.get("SPACES_ZERO_GPU"):
        model.to(plan.device)
    _try_out(spec, model, tokenizer, form.content_parts)
    if not plan.placed:
        model.to(plan.device)
    hardware.return_memory()
    text = model.config.get_text_config()
    context = traits.context_length(text.to_dict(), tokenizer.model_max_length) or load_plan.USUAL_CONTEXT
    return LoadedModel(
        spec=spec,
        plan=plan,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        context=min(plan.kv_tokens or traits.MAX_CONTEXT, context),
        layers=text.num_hidden_layers,
        system_role=form.system_role,
        reasoning=form.reasoning,
        content_parts=form.content_parts,
    )


def _opened(source: hub.Source, folder: Path) -> tuple[hub.Source, Path, int]:
    """The source with all its weight files, the folder with its small files, and the size of its weights as loaded.

    Raises `ModelUnavailable` for an adapter that cannot be merged, and for files in formats that are not loaded.
    """
    spec = source.spec
    if spec.adapter and (problem := lora.obstacle(Path(spec.adapter), spec.label)):
        raise ModelUnavailable(problem)
    if spec.gguf:
        return source, *_unpacked(spec, folder)
    source = source.indexed(folder)
    if not (size := source.weights_bytes):
        raise ModelUnavailable(
            f"{spec.label} has no weights in the safetensors format or in GGUF, the formats that Parley loads. "
            "Choose another model, or convert it on the Hub."
        )
    return source, folder, size


def _fitting(estimate: LoadEstimate) -> LoadPlan:
    if estimate.plan is None:
        raise ModelUnavailable(estimate.sentence)
    if not estimate.fits:
        raise NoRoom(estimate.sentence)
    return estimate.plan


def _model(
    checkpoint: "Checkpoint",
    plan: LoadPlan,
    choose: Callable[..., LoadEstimate],
    *,
    report: Report,
    cancel: threading.Event,
) -> tuple["PreTrainedModel", LoadPlan]:
    """The model, loaded by the engine of the plan, and the plan that was carried out in the end.

    `choose(refused=…)` takes the reason why OpenVINO refuses the model, and plans without OpenVINO.
    """
    from parley.engines.openvino import loader as openvino_loader
    from parley.engines.transformers import loader as transformers_loader

    if plan.engine == OPENVINO:
        try:
            return openvino_loader.load(checkpoint, plan, report, cancel), plan
        except EngineRefused as refusal:
            _log.warning("Transformers runs %s: OpenVINO refuses it (%s)", checkpoint.spec.name, refusal)
            plan = _fitting(choose(refused=str(refusal)))
    return transformers_loader.load(checkpoint, plan)


@functools.lru_cache(maxsize=8)
def _unpacked_folder(file: Path, _: int) -> tempfile.TemporaryDirectory[str]:
    """A folder with the configuration and the tokenizer of a GGUF file, for as long as this process runs."""
    from parley.engines.checkpoint import unpack

    folder = tempfile.TemporaryDirectory(prefix="parley-gguf-")
    try:
        unpack(file, Path(folder.name))
    except BaseException:
        folder.cleanup()
        raise
    return folder


def _unpacked(spec: ModelSpec, folder: Path) -> tuple[Path, int]:
    """The folder of configuration and tokenizer of a GGUF file, and the size of its weights after the conversion."""
    file = folder / spec.gguf
    if problem := gguf.obstacle(file):
        raise ModelUnavailable(problem)
    try:
        made = Path(_unpacked_folder(file, file.stat().st_mtime_ns).name)
    except ModelUnavailable:
        raise
    except Exception as error:  # a stranger's file can raise anything
        raise load_errors.unsuitable(spec, "a configuration or tokenizer in GGUF", error) from error
    return made, gguf.header(file).converted_bytes


def _read(spec: ModelSpec, path: Path, required: bool = True) -> dict[str, Any]:
    if not path.is_file() and not required:
        return {}
    with suppress(OSError, ValueError):
        data = path.read_bytes()
        if data.startswith(codecs.BOM_UTF8):
            raise ModelUnavailable(
                f"{spec.label} has a byte order mark at the start of {path.name}. Save the file as UTF-8 without it."
            )
        if isinstance(value := json.loads(data), dict):
            return value
    raise Unloadable(f"{spec.label} has no readable {path.name}. Choose another model.")


def _check_architecture(spec: ModelSpec, config: Mapping[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = str(config.get("model_type"))
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return  # transformers has code for it, so that code in the repository is ignored
    if "auto_map" in config:
        raise load_errors.needs_code(spec)
    raise ModelUnavailable(
        f"{spec.label} has the architecture {kind[:40]!r}, which the installed transformers cannot chat with. "
        "Choose another model, or update transformers."
    )


def _tokenizer(spec: ModelSpec, folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    own = Path(spec.adapter) / "tokenizer_config.json"  # an adapter may bring a tokenizer with a chat template
    folder = own.parent if spec.adapter and own.is_file() else folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a stranger's file can raise anything
        if "AutoTokenizer" in _read(spec, folder / "tokenizer_config.json", required=False).get("auto_map", ()):
            raise load_errors.needs_code(spec) from error
        raise load_errors.unsuitable(spec, "a tokenizer", error) from error
    if not tokenizer.is_fast:
        raise ModelUnavailable(
            f"{spec.label} has a tokenizer of the kind {type(tokenizer).__name__}, which cannot give text token by "
            "token. Choose another model."
        )
    named = tokenizer.chat_template or _read(spec, folder / "chat_template.json", required=False).get("chat_template")
    tokenizer.chat_template = traits.default_template(named)
    if not tokenizer.chat_template:  # it continues text, but was not trained to chat
        tokenizer.chat_control_tokens = []
        return tokenizer
    if not spec.folder or not spec.folder.is_relative_to(_BUNDLED):
        tokens = json.dumps(tokenizer.special_tokens_map, default=str)
        if too_much := template_trial.excess(tokenizer.chat_template, tokens):
            raise load_errors.template_explodes(spec, too_much)
    from parley.generation.chat_template import guarded_tokens
    from parley.generation.template_probe import reasoning

    literals = traits.literal_text(tokenizer.chat_template)
    tokenizer.chat_control_tokens = guarded_tokens(tokenizer, literals, reasoning(tokenizer).dialect)
    return tokenizer


def _neutralise(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", turn_ends: Sequence[int]) -> None:
    """Replaces the model's generation config by one that holds only special tokens, with all end-of-sequence ids.

    `turn_ends` are the tokens that end an answer in the chat template.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    ends = [id for id in dict.fromkeys((*ends, tokenizer.eos_token_id, *turn_ends)) if id is not None]
    pads = (own.pad_token_id, tokenizer.pad_token_id, *ends, 0)
    pad = next(id for id in pads if id is not None)
    bos = tokenizer.bos_token_id if own.bos_token_id is None else own.bos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=pad, bos_token_id=bos)


def _try_out(
    spec: ModelSpec, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", content_parts: bool
) -> None:
    """Generates four tokens, because damaged weights can load without an error. Raises if logits are not finite."""
    import torch

    from parley.generation.template_probe import parts

    messages = [{"role": "user", "content": parts("Hello") if content_parts else "Hello"}]
    try:
        if tokenizer.chat_template:
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        else:
            prompt = tokenizer("Hello", return_tensors="pt")
        prompt = prompt.to(model.device)
    except Exception as error:  # a stranger's chat template can raise anything
        raise load_errors.template_fails(spec, error) from error
    try:
        with torch.inference_mode():
            answer = model.generate(
                prompt["input_ids"],
                attention_mask=prompt["attention_mask"],
                max_new_tokens=4,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
    except load_errors.NotFinite as error:
        raise load_errors.not_finite(spec) from error
    except Exception as error:  # a stranger's config can make the code of transformers raise anything
        raise load_errors.unsuitable(spec, "code", error) from error
    if not all(bool(logits.isfinite().all()) for logits in answer.logits):
        raise load_errors.not_finite(spec)
