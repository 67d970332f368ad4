"""The files of a model on this disk: the folder with its configuration, and where its tensors are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parley.engines.tensors import GgufFile, Merged, SafetensorsFolder, Tensors
from parley.errors import ModelUnavailable
from parley.models.formats import gguf
from parley.models.spec import ModelSpec

ROPE_FREQUENCIES = "rope_freqs.weight"
LONGROPE_FACTORS = {"rope_factors_long.weight", "rope_factors_short.weight"}  # transformers leaves them out
# Llama 3 scales RoPE by these; a GGUF file holds only the resulting factors. See transformers' modeling_rope_utils.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True)
class Checkpoint:
    """A model whose files are all on this disk."""

    spec: ModelSpec
    folder: Path  # configuration, tokenizer and, for safetensors, weights

    @property
    def plain(self) -> bool:
        """Whether transformers can load the folder as it is."""
        return not (self.spec.gguf or self.spec.adapter)

    def tensors(self) -> Tensors:
        """The tensors of the model, converted and merged while they are read."""
        spec = self.spec
        base: Tensors = GgufFile(gguf_path(self.folder)) if spec.gguf else SafetensorsFolder(self.folder)
        return Merged(base, Path(spec.adapter)) if spec.adapter else base


def gguf_path(folder: Path) -> Path:
    """The GGUF file that `unpack` made the folder from."""
    return Path(json.loads((folder / "source.json").read_text("utf-8"))["gguf"])


def unpack(file: Path, folder: Path) -> None:
    """Writes configuration and tokenizer of a GGUF file into a folder, as transformers reads them.

    Raises `ModelUnavailable` for RoPE factors that no setting of transformers gives.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    tokenizer.model_max_length = config.get_text_config().max_position_embeddings
    fields = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
    fields |= {"dtype": "bfloat16"} | _rope(file, config)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    tokenizer.save_pretrained(folder)
    GenerationConfig(bos_token_id=tokenizer.bos_token_id, **ends).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(fields), "utf-8")
    (folder / "source.json").write_text(json.dumps({"gguf": str(file)}), "utf-8")


def _rope(file: Path, config: Any) -> dict[str, Any]:
    """The RoPE parameters that give the factors in the file; empty where it has none."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if not LONGROPE_FACTORS.isdisjoint(gguf.header(file).tensors):
        raise _unread_factors(file)
    info = gguf.header(file).tensors.get(ROPE_FREQUENCIES)
    if info is None:
        return {}
    factors = torch.from_numpy(np.fromfile(file, np.float32, info.shape[0], offset=info.offset))
    plain = config.rope_parameters
    scaled = plain | LLAMA3_ROPE | {"rope_type": "llama3", "factor": float(factors.max())}
    config.rope_parameters = scaled
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    dimensions = 2 * len(factors)
    unscaled = 1.0 / plain["rope_theta"] ** (torch.arange(0, dimensions, 2).float() / dimensions)
    if not torch.allclose(unscaled / frequencies, factors, rtol=1e-3):
        raise _unread_factors(file)
    return {"rope_parameters": scaled}


def _unread_factors(file: Path) -> ModelUnavailable:
    return ModelUnavailable(
        f"{file.name} is a GGUF file with RoPE factors of its own, which are not read here. "
        "Choose the model's folder of safetensors files."
    )
