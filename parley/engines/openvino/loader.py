"""Loads a model's folder as a graph: builds it, compiles it, and allocates its pool of KV blocks."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from parley.engines import load_errors
from parley.engines.checkpoint import Checkpoint
from parley.engines.load_errors import EngineRefused, NotFinite
from parley.engines.openvino import graph
from parley.engines.openvino.batch_invariance import max_rows
from parley.engines.openvino.decoder import Decoder
from parley.engines.openvino.model_adapter import ModelAdapter
from parley.engines.openvino.paged_kv import blocks_for
from parley.engines.openvino.weights import Precision, Weights
from parley.errors import ModelUnavailable
from parley.events import STATUSES, Report
from parley.models import hub
from parley.models.load_plan import LoadPlan
from parley.strategies.decoders.dola import early_layers

KV_CACHE_PROPERTIES: dict[Precision, dict[str, str]] = {
    "float32": {"KV_CACHE_PRECISION": "f32"},
    # One byte per number. Each token has its own scale, so that its values do not depend on the size of the chunks.
    "int8": {"KV_CACHE_PRECISION": "u8", "KEY_CACHE_QUANT_MODE": "BY_TOKEN"},
}
Progress = Callable[[float], None]  # takes the finished share, 0 to 1; may raise to stop
POLL_SECONDS = 0.05  # how often a turn that waits for the exit graph looks whether it was stopped
EXTRA_BLOCKS = 2  # the padding block, and one for a copy on write


def precision_of(plan: LoadPlan) -> Precision:
    """The number format of the weights in the graph of this plan."""
    return "int8" if plan.quantization == "int8" else "float32"


class NotBatchInvariant(RuntimeError):
    """On this processor the logits of a row depend on the other rows of the pass, or the probe crashed."""


def properties(precision: Precision, threads: int) -> dict[str, Any]:
    """The properties for compiling a graph: float32 activations; keys and values in the precision of the weights."""
    return {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads} | KV_CACHE_PROPERTIES[precision]


def load(checkpoint: Checkpoint, plan: LoadPlan, report: Report, cancel: threading.Event) -> ModelAdapter:
    """The model as a graph. Raises `EngineRefused` if OpenVINO cannot run it, and `ModelUnavailable` for bad files."""
    spec, folder = checkpoint.spec, checkpoint.folder

    def progress(share: float) -> None:
        if cancel.is_set():
            raise hub.stopped(spec)
        report(STATUSES["loaded"].format(model=spec.label, share=f"{share:.0%}"))

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        weights = Weights(checkpoint.tensors())
        return _write_and_compile(folder, weights, config, plan, progress)
    except graph.WeightsMismatch as error:
        if missing := [name for name in error.names if weights.stored_name(name) is None]:
            raise load_errors.incomplete(spec, missing) from error
        raise load_errors.unsuitable(spec, "weights", error) from error  # wrong shapes
    except NotFinite as error:
        raise load_errors.not_finite(spec) from error
    except ModelUnavailable:
        raise
    except MemoryError as error:
        raise load_errors.too_large(spec) from error
    except (graph.UnusedParameters, RuntimeError) as error:  # RuntimeError: from OpenVINO, or `NotBatchInvariant`
        raise EngineRefused(str(error).splitlines()[0][:200]) from error
    except Exception as error:  # SafetensorError, OSError, …
        raise load_errors.unsuitable(spec, "weights", error) from error


def _write_and_compile(
    folder: Path, weights: Weights, config: PreTrainedConfig, plan: LoadPlan, progress: Progress
) -> ModelAdapter:
    """The model of a folder, by the plan, with its KV pool.

    Raises `graph.WeightsMismatch`, `weights.NotFinite` and `SafetensorError` for files that cannot be used, and
    `graph.UnusedParameters` and `NotBatchInvariant` if another engine has to run the model.
    """
    precision, threads = precision_of(plan), plan.threads
    num_rows = max_rows(config, precision, properties(precision, threads))
    if not num_rows:
        raise NotBatchInvariant("the probe found no number of rows with batch invariance")
    layers = config.num_hidden_layers
    early = sorted({n for half in ("low", "high") for n in early_layers(layers, config.tie_word_embeddings, half)})
    written = graph.write(config, weights, precision, early=early, progress=lambda done, of: progress(0.9 * done / of))
    decoder = Decoder(written, properties(precision, threads), early, num_rows)
    decoder.make_pool(blocks_for(plan.kv_tokens) + EXTRA_BLOCKS)
    progress(1.0)
    model = ModelAdapter(config, decoder)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


class ExitGraph:
    """The graph of a model's first layers, for early-exit drafts. Only the latest graph is kept.

    Turns that exit after the same layer share it. A turn with another layer waits until these have ended.
    """

    def __init__(self, checkpoint: Checkpoint, model: ModelAdapter, precision: Precision, threads: int) -> None:
        self._checkpoint, self._model, self._precision, self._threads = checkpoint, model, precision, threads
        self._changed = threading.Condition()
        self._leases = 0
        self.layer = 0

    @contextmanager
    def lease(self, layer: int, progress: Progress) -> Iterator[None]:
        """Makes the graph up to `layer` the model's exit graph during a `with` block.

        If `progress` raises, the model has no exit graph.
        """
        with self._changed:
            while self._leases and self.layer != layer:
                self._changed.wait(POLL_SECONDS)
                progress(0.0)
            self._leases += 1
            try:
                self._prepare(layer, progress)
            except BaseException:
                self._leases -= 1
                raise
        try:
            yield
        finally:
            with self._changed:
                self._leases -= 1
                self._changed.notify_all()

    def _prepare(self, layer: int, progress: Progress) -> None:
        if self.layer == layer:
            return
        model = self._model
        self.layer, model.exit = 0, None
        written = graph.write(
            model.config,
            Weights(self._checkpoint.tensors()),
            self._precision,
            layers=layer,
            progress=lambda done, of: progress(0.9 * done / of),
        )
        decoder = _compile(written, properties(self._precision, self._threads), progress)
        decoder.share_pool(model.decoder)
        decoder.max_rows = model.decoder.max_rows
        self.layer, model.exit = layer, decoder


def _compile(written: Any, compile_properties: dict[str, Any], progress: Progress) -> Decoder:
    """Compiles in a thread. If `progress` raises, the thread goes on until the compilation ends."""
    results: list[Decoder | Exception] = []

    def compile_it() -> None:
        try:
            results.append(Decoder(written, compile_properties))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=compile_it, daemon=True, name="compile")
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        progress(0.95)
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]
