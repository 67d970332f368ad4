"""From a row of the catalogue to a model that answers: checked before and after its download, code never run."""

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parley.engines.base import Report
from parley.errors import ModelUnavailable
from parley.models import attention, hardware, hub, load_plan, traits
from parley.models.hub import ModelRow
from parley.models.load_plan import Fit
from parley.models.precision import OPENVINO

if TYPE_CHECKING:  # importing torch takes seconds, and the page should be up before
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SENTINEL = "sentinel-7193"
_log = logging.getLogger(__name__)


class Unloadable(ModelUnavailable):
    """A failure that a damaged file may explain."""


class EngineRefused(Exception):
    """OpenVINO cannot run a model that it was planned for: another engine has to answer."""


@dataclass
class Loaded:
    """A model that is ready to answer, and what is known of it.

    Its `generation_config` holds only the ids of special tokens: nothing of the model's own sampling is left in it.
    """

    row: ModelRow
    fit: Fit
    folder: Path
    model: "PreTrainedModel"  # with OpenVINO an adapter, which has no weights
    tokenizer: "PreTrainedTokenizerBase"
    context: int  # tokens
    layers: int
    thinking: bool  # whether the template reads `enable_thinking`
    system_role: bool  # whether the template takes a system message, and shows it to the model


def load(
    row: ModelRow,
    report: Report,
    cancel: threading.Event,
    *,
    room: Callable[[Fit], int] | None = None,
    disk: Callable[[], int] = hardware.free_disk,
) -> Loaded:
    """Loads a model, downloading it first where needed; a file that arrived damaged is fetched a second time.

    `room` is asked for the memory of a plan, may free some, and returns how many bytes are free; `disk` says how many
    are free on the disk. Raises `ModelUnavailable`, `hub.LoadingStopped` included.
    """
    report(f"Looking for {row.label}")
    source = hub.find(row)
    room = room or (lambda fit: hardware.free_memory(fit.cards))
    try:
        return _load(source, report, cancel, room, disk)
    except Unloadable as error:
        if not source.purge_damaged():
            raise
        _log.warning("A file of %s was damaged and is fetched again", row.name, exc_info=error)
    try:
        return _load(source, report, cancel, room, disk)
    except Unloadable as error:
        if damaged := source.purge_damaged():
            raise ModelUnavailable(
                f"{damaged[0]} of {row.label} arrives damaged, twice now. Try again later, or choose another model."
            ) from error
        raise


def _load(
    source: hub.Source, report: Report, cancel: threading.Event, room: Callable[[Fit], int], disk: Callable[[], int]
) -> Loaded:
    # 1. Everything that can rule the model out is small and comes first.
    row = source.row
    folder = source.fetch(hub.SMALL, report, cancel, disk)
    config = _read(row, folder / "config.json")
    _read(row, folder / "generation_config.json", needed=False)  # transformers would do without a damaged one
    _check_architecture(row, config)
    if not source.weights_bytes:
        raise ModelUnavailable(
            f"{row.label} has no weights in the safetensors format, the only one that is loaded here. "
            "Choose another model, or convert it on the Hub."
        )
    tokenizer = _tokenizer(row, folder)
    outlook = load_plan.consider(row, config, source.weights_bytes, room)
    if not outlook.fits:
        raise ModelUnavailable(outlook.sentence)

    # 2. The weights.
    folder = source.fetch(hub.SMALL + hub.WEIGHTS, report, cancel, disk)
    if cancel.is_set():
        raise hub.stopped(row)
    report(f"Loading {row.label}")
    fit, model = outlook.fit, None
    if fit.engine == OPENVINO:
        try:
            model = _written(row, folder, fit, report, cancel)
        except EngineRefused as refusal:
            _log.warning("Transformers answers as %s: OpenVINO does not run it, for %s", row.name, refusal)
            outlook = load_plan.consider(row, config, source.weights_bytes, room, refused=str(refusal))
            if not outlook.fits:
                raise ModelUnavailable(outlook.sentence) from refusal
            fit = outlook.fit
    elif fit.device == "cpu":
        _log.info("Transformers answers as %s: %s", row.name, load_plan.engine_obstacle(config, hardware.machine()))
    if model is None:
        model, fit = _model(row, folder, fit)
    _neutralise(model, tokenizer)

    # 3. A first answer. On ZeroGPU there is a GPU only inside a turn, so the answer comes from the CPU.
    if not fit.placed and not os.environ.get("SPACES_ZERO_GPU"):
        model.to(fit.device)
    _try_out(row, model, tokenizer)
    if not fit.placed:
        model.to(fit.device)
    hardware.return_memory()
    text = model.config.get_text_config()
    stated = traits.context_length(text.to_dict(), tokenizer.model_max_length)
    return Loaded(
        row=row,
        fit=fit,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        context=min(fit.kv_tokens or traits.MOST_CONTEXT, stated or load_plan.USUAL_CONTEXT),
        layers=text.num_hidden_layers,
        thinking=traits.reads_thinking(tokenizer.chat_template),
        system_role=_takes_system(tokenizer),
    )


def _read(row: ModelRow, path: Path, needed: bool = True) -> dict[str, Any]:
    if not path.is_file() and not needed:
        return {}
    with suppress(OSError, ValueError):
        if isinstance(value := json.loads(path.read_bytes()), dict):
            return value
    raise Unloadable(f"{row.label} has no readable {path.name}. Choose another model.")


def _check_architecture(row: ModelRow, config: Mapping[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = str(config.get("model_type"))
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return  # with code of its own or not: the code of transformers is used
    if "auto_map" in config:
        raise _needs_code(row)
    raise ModelUnavailable(
        f"{row.label} has the architecture {kind[:40]!r}, which the installed transformers cannot chat with. "
        "Choose another model, or update transformers."
    )


def _needs_code(row: ModelRow) -> ModelUnavailable:
    return ModelUnavailable(
        f"{row.label} needs Python code from its own repository, which is never run here. Choose another model."
    )


def _tokenizer(row: ModelRow, folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever strangers' files can cause; none of it is a fault of the caller
        if "AutoTokenizer" in _read(row, folder / "tokenizer_config.json", needed=False).get("auto_map", ()):
            raise _needs_code(row) from error
        raise _unsuitable(row, "a tokenizer", error) from error
    tokenizer.chat_template = traits.default_template(tokenizer.chat_template)
    if not tokenizer.chat_template:
        raise ModelUnavailable(
            f"{row.label} has no chat template: it continues text, but was not taught to talk. Choose a chat model."
        )
    tokenizer.chat_control_tokens = [t.content for t in tokenizer.added_tokens_decoder.values() if t.content.strip()]
    return tokenizer


def _unsuitable(row: ModelRow, part: str, error: Exception) -> ModelUnavailable:
    _log.warning("%s has %s that cannot be loaded", row.name, part, exc_info=error)
    return Unloadable(f"{row.label} has {part} that cannot be loaded ({type(error).__name__}). Choose another model.")


def _written(row: ModelRow, folder: Path, fit: Fit, report: Report, cancel: threading.Event) -> "PreTrainedModel":
    """The model as a graph; raises `EngineRefused` where the library cannot run it, and what `_read_model` raises."""
    from transformers import AutoConfig

    from parley.engines.openvino import graph, loader
    from parley.engines.openvino.weights import NotFinite, Weights

    def progress(share: float) -> None:
        if cancel.is_set():
            raise hub.stopped(row)
        report(f"Loading {row.label}: {share:.0%}")

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        weights = Weights(folder)
        return loader.load(folder, weights, config, fit, progress)
    except hub.LoadingStopped:
        raise
    except graph.Misfit as error:
        if missing := [name for name in error.names if weights.stored_name(name) is None]:
            raise _incomplete(row, missing) from error
        raise _unsuitable(row, "weights", error) from error  # of another shape
    except NotFinite as error:
        raise _spoilt(row) from error
    except MemoryError as error:
        raise _too_large(row) from error
    except (graph.NotDescribed, RuntimeError) as error:  # the latter is the library's, and the probe's
        raise EngineRefused(str(error).splitlines()[0][:200]) from error
    except Exception as error:  # SafetensorError, OSError, …
        raise _unsuitable(row, "weights", error) from error


def _incomplete(row: ModelRow, names: Sequence[str]) -> Unloadable:
    return Unloadable(
        f"{row.label} is incomplete: {len(names)} of its tensors are missing, {names[0][:80]} for one. "
        "Choose another model."
    )


def _spoilt(row: ModelRow) -> Unloadable:
    return Unloadable(
        f"{row.label} computes numbers that are not finite: its weights are spoilt. Choose another model."
    )


def _too_large(row: ModelRow) -> ModelUnavailable:
    return ModelUnavailable(f"{row.label} does not fit the memory. Choose a smaller model.")


def _model(row: ModelRow, folder: Path, fit: Fit) -> tuple["PreTrainedModel", Fit]:
    """The model, and the plan as it could be kept: an attention that cannot be had is done without."""
    try:
        return _read_model(row, folder, fit), fit
    except Unloadable:
        if fit.attention not in attention.FLASH:
            raise
    _log.warning("%s is loaded without %s", row.name, attention.LABELS[fit.attention])
    model = _read_model(row, folder, replace(fit, attention=attention.PLAIN))
    return model, replace(fit, attention=model.config._attn_implementation)


def _read_model(row: ModelRow, folder: Path, fit: Fit) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    from parley.engines.transformers import quantization

    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **quantization.arguments(fit),
        )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _too_large(row) from error
    except Exception as error:  # as above: SafetensorError, RuntimeError for shapes, ImportError for kernels, …
        raise _unsuitable(row, "weights", error) from error
    if missing := sorted(map(str, (*told["missing_keys"], *told["mismatched_keys"]))):
        raise _incomplete(row, missing)
    if not {"cpu", "disk"}.isdisjoint(map(str, getattr(model, "hf_device_map", {}).values())):
        raise _too_large(row)  # what is left outside of the cards would take seconds a token
    quantization.finish(model, fit)
    return model


def _neutralise(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Leaves the model no settings of its own but the ids of special tokens, all of those that end an answer."""
    from transformers import GenerationConfig

    own = model.generation_config
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    ends = [id for id in dict.fromkeys((*ends, tokenizer.eos_token_id)) if id is not None]
    pads = (own.pad_token_id, tokenizer.pad_token_id, *ends, 0)
    pad = next(id for id in pads if id is not None)
    bos = tokenizer.bos_token_id if own.bos_token_id is None else own.bos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=pad, bos_token_id=bos)


def _try_out(row: ModelRow, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Generates four tokens: damaged weights load without a word, but do not answer in finite numbers."""
    import torch

    try:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hello"}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
        ).to(model.device)
        with torch.inference_mode():
            answer = model.generate(
                prompt["input_ids"],
                attention_mask=prompt["attention_mask"],
                max_new_tokens=4,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
    except Exception as error:  # as above, the chat template included
        raise _unsuitable(row, "a chat template or code", error) from error
    if not all(bool(logits.isfinite().all()) for logits in answer.logits):
        raise _spoilt(row)


def _takes_system(tokenizer: "PreTrainedTokenizerBase") -> bool:
    messages = [{"role": "system", "content": SENTINEL}, {"role": "user", "content": "Hello"}]
    try:
        return SENTINEL in tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception:  # a template is a stranger's program: however it fails, the system role is not for it
        return False
