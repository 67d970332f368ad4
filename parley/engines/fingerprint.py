"""The fingerprint of what computes an answer: equal fingerprints give equal text for equal settings and seeds."""

import hashlib
import json
from importlib.metadata import version

import torch

from parley.generation.loaded_model import LoadedModel
from parley.models.precision import OPENVINO

MAY_DIFFER = "_words_may_differ"  # the end of a fingerprint that promises nothing
LIBRARIES = ("torch", "transformers", "tokenizers")


def fingerprint(loaded: LoadedModel) -> str:
    """As `system_fingerprint` of OpenAI's API: from the revision and the files of the model, its chat template, the
    engine, the number format, the kind of processor and the versions of the libraries.

    The CPU engine and 32-bit floats on a CPU promise equal text. Any other fingerprint ends with `MAY_DIFFER`.
    """
    plan = loaded.plan
    openvino = plan.engine == OPENVINO
    parts = {
        "model": loaded.spec.id,
        "revision": revision(loaded),
        "files": sorted((file.name, file.stat().st_size) for file in loaded.folder.glob("*") if file.is_file()),
        "template": loaded.tokenizer.chat_template,
        "engine": plan.engine,
        "numbers": plan.numbers,
        "processor": _processor(plan.device),
        "threads": plan.threads if openvino else torch.get_num_threads(),
        "versions": {name: version(name) for name in (*LIBRARIES, *(["openvino"] if openvino else []))},
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
    exact = openvino or (plan.device == "cpu" and plan.numbers == "float32")
    return f"fp_{digest}{'' if exact else MAY_DIFFER}"


def revision(loaded: LoadedModel) -> str:
    """The commit of the model on the Hub; empty for files from elsewhere."""
    folder = loaded.folder
    return folder.name if folder.parent.name == "snapshots" else loaded.spec.revision or ""


def _processor(device: str) -> str:
    """The kind of processor, as far as it decides how numbers are rounded."""
    if device != "cpu":
        return device  # without its name: to ask for it begins CUDA, which ZeroGPU forbids outside of a worker
    vnni = " VNNI" if torch.cpu._is_vnni_supported() else ""
    return f"CPU {torch.backends.cpu.get_cpu_capability()}{vnni}"
