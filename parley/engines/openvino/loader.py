"""From a model's folder to a graph that answers: written, compiled, and given its pool of KV blocks."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from parley.engines import load_errors
from parley.engines.load_errors import EngineRefused
from parley.engines.openvino import graph
from parley.engines.openvino.batch_invariance import max_rows
from parley.engines.openvino.decoder import Decoder
from parley.engines.openvino.model_adapter import ModelAdapter
from parley.engines.openvino.paged_kv import blocks_for
from parley.engines.openvino.weights import NotFinite, Precision, Weights
from parley.events import Report
from parley.models import hub
from parley.models.load_plan import LoadPlan
from parley.models.spec import ModelSpec
from parley.strategies.decoders.dola import early_layers

KEYS_AND_VALUES: dict[Precision, dict[str, str]] = {
    "float32": {"KV_CACHE_PRECISION": "f32"},
    # One byte for a number, each token by itself: what was read does not depend on how it was cut.
    "int8": {"KV_CACHE_PRECISION": "u8", "KEY_CACHE_QUANT_MODE": "BY_TOKEN"},
}
Progress = Callable[[float], None]
EXTRA_BLOCKS = 2  # of nobody's, and the one that a copy on write needs


def precision_of(plan: LoadPlan) -> Precision:
    """In which numbers the graph of this plan is."""
    return "int8" if plan.quantization == "int8" else "float32"


class NotInvariant(RuntimeError):
    """On this processor a row's logits depend on its company, or the library crashed."""


def properties(precision: Precision, threads: int) -> dict[str, Any]:
    """What the library is asked for: float32 activations, and keys and values as the weights."""
    return {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads} | KEYS_AND_VALUES[precision]


def load(spec: ModelSpec, folder: Path, plan: LoadPlan, report: Report, cancel: threading.Event) -> ModelAdapter:
    """The model as a graph; raises `EngineRefused` where the library cannot run it, and what `_read_model` raises."""

    def progress(share: float) -> None:
        if cancel.is_set():
            raise hub.stopped(spec)
        report(f"Loading {spec.label}: {share:.0%}")

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        weights = Weights(folder)
        return _write_and_compile(folder, weights, config, plan, progress)
    except hub.LoadingStopped:
        raise
    except graph.Misfit as error:
        if missing := [name for name in error.names if weights.stored_name(name) is None]:
            raise load_errors.incomplete(spec, missing) from error
        raise load_errors.unsuitable(spec, "weights", error) from error  # of another shape
    except NotFinite as error:
        raise load_errors.not_finite(spec) from error
    except MemoryError as error:
        raise load_errors.too_large(spec) from error
    except (graph.NotDescribed, RuntimeError) as error:  # the latter is the library's, and the probe's
        raise EngineRefused(str(error).splitlines()[0][:200]) from error
    except Exception as error:  # SafetensorError, OSError, …
        raise load_errors.unsuitable(spec, "weights", error) from error


def _write_and_compile(
    folder: Path, weights: Weights, config: PreTrainedConfig, plan: LoadPlan, progress: Progress
) -> ModelAdapter:
    """The model of a folder as it was planned, with its pool of keys and values.

    `progress` takes the share that is done, and may raise to stop. Raises `graph.Misfit`, `weights.NotFinite` and
    `SafetensorError` for files that cannot be used; `graph.NotDescribed` and `NotInvariant` where another engine has
    to answer.
    """
    precision, threads = precision_of(plan), plan.threads
    num_rows = max_rows(config, precision, properties(precision, threads))
    if not num_rows:
        raise NotInvariant("the probe found no number of rows at which a row does not depend on its company")
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
    """The graph of a model's first layers, for drafts: at most one is kept, and another takes its place."""

    def __init__(self, folder: Path, model: ModelAdapter, precision: Precision, threads: int) -> None:
        self._folder, self._model, self._precision, self._threads = folder, model, precision, threads
        self.layer = 0

    def prepare(self, layer: int, progress: Progress) -> None:
        """Gives the model the graph cut after `layer`. `progress` may raise to stop: the model then has none."""
        if self.layer == layer:
            return
        model = self._model
        self.layer, model.exit = 0, None
        written = graph.write(
            model.config,
            Weights(self._folder),
            self._precision,
            layers=layer,
            progress=lambda done, of: progress(0.9 * done / of),
        )
        compiled = _compiled(written, properties(self._precision, self._threads), progress)
        compiled.share_pool(model.decoder)
        compiled.max_rows = model.decoder.max_rows
        self.layer, model.exit = layer, compiled


def _compiled(written: Any, asked: dict[str, Any], progress: Progress) -> Decoder:
    """Compiles in a thread, so that a stop need not wait for the library; it then ends by itself."""
    made: list[Decoder | Exception] = []

    def compile_it() -> None:
        try:
            made.append(Decoder(written, asked))
        except Exception as error:
            made.append(error)

    thread = threading.Thread(target=compile_it, daemon=True, name="compile")
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        progress(0.95)
    if isinstance(made[0], Exception):
        raise made[0]
    return made[0]
