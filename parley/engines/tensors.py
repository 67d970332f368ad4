"""The tensors of a model by the parameter names of transformers, read in slices of rows, whatever their format.

A file is opened for one tensor at a time, because a mapped file counts as memory of the process.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from parley.models.formats import gguf, lora

SLICE_ROWS = 4096  # rows of a matrix that are converted to floats at a time
PREFIX = "model."


class Tensors(Protocol):
    """Where the weights of a model come from. Methods raise `KeyError` for a name that is missing."""

    def stored_name(self, name: str) -> str | None:
        """The name of a parameter in the files; None if it is missing."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""

    def rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """The entries from `begin` to `end` of the first dimension, as float32, in memory of their own."""


class SafetensorsFolder:
    """The tensors of a folder of safetensors files.

    Raises `SafetensorError`, `OSError`, `KeyError` or `ValueError` for a missing or damaged file.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        paths = [folder / SAFE_WEIGHTS_NAME]
        if not paths[0].is_file():  # the order of transformers; it ignores other files of the folder
            index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text("utf-8"))
            paths = [folder / name for name in sorted(set(index["weight_map"].values()))]
        for path in paths:
            with safe_open(path, "pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def stored_name(self, name: str) -> str | None:
        """The name of a parameter in the files; None if it is missing.

        Files that were saved from the decoder without its head have no "model." before their names.
        """
        return next((each for each in (name, name.removeprefix(PREFIX)) if each in self._files), None)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        stored = _stored(self, name)
        with safe_open(self._files[stored], "pt") as file:
            return tuple(file.get_slice(stored).get_shape())

    def rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """The entries from `begin` to `end` of the first dimension, as float32."""
        stored = _stored(self, name)
        with safe_open(self._files[stored], "pt") as file:
            return file.get_slice(stored)[begin:end].to(torch.float32, copy=True)


class GgufFile:
    """The tensors of a GGUF file, from the layout of llama.cpp back to that of transformers.

    Raises `ModelUnavailable`, `OSError`, `KeyError` or `ValueError` for a file that is damaged or has unknown types.
    """

    def __init__(self, path: Path) -> None:
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        self._path, self._header = path, gguf.header(path)
        architecture = self._header.architecture
        self._layout = gguf.ARCHITECTURES[architecture][1]
        number = next(number for number, name in MODEL_ARCH_NAMES.items() if name == architecture)
        self._names = get_tensor_name_map(number, int(self._stated("block_count")))

    def _stated(self, key: str) -> int:
        return self._header.metadata[f"{self._header.architecture}.{key}"]

    def stored_name(self, name: str) -> str | None:
        """The name of a parameter in the file; None if it is missing."""
        plain, _, suffix = name.rpartition(".")
        found = f"{self._names.get_name(plain)}.{suffix}"
        return found if found in self._header.tensors else None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._header.tensors[_stored(self, name)].shape

    def rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """The entries from `begin` to `end` of the first dimension, as float32."""
        stored = _stored(self, name)
        info = self._header.tensors[stored]
        end = min(end, info.shape[0])
        if self._layout == "permuted" and (".attn_q." in stored or ".attn_k." in stored):
            return torch.from_numpy(self._read(info, self._places(stored, info.shape[0])[begin:end]))
        floats = torch.from_numpy(self._read(info, np.arange(begin, end)))
        return floats - 1 if self._layout == "norm plus one" and "norm.weight" in stored else floats

    def _places(self, stored: str, rows: int) -> np.ndarray:
        """For each row of a matrix of queries or keys as transformers has it, its place in the file."""
        heads = self._stated("attention.head_count")
        if ".attn_k." in stored:
            heads = self._header.metadata.get(f"{self._header.architecture}.attention.head_count_kv", heads)
        return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)

    def _read(self, info: gguf.TensorInfo, places: np.ndarray) -> np.ndarray:
        """The entries at these places of the first dimension as float32."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType(info.type)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        vector = len(info.shape) == 1  # its blocks go across its entries, so it is read as one row
        rows, width = (1, info.shape[0]) if vector else (info.shape[0], math.prod(info.shape[1:]))
        stored = np.memmap(self._path, np.uint8, "r", info.offset, (rows, width // block * block_bytes))
        floats = dequantize(np.array(stored) if vector else stored[places], kind).astype(np.float32)
        return floats[0][places] if vector else floats.reshape(len(places), *info.shape[1:])


class Merged:
    """The tensors of a base model with a LoRA adapter: W + scale * B A.

    Raises `ValueError` for an adapter with tensors that the base model lacks.
    """

    def __init__(self, base: Tensors, adapter: Path) -> None:
        self._base, self._adapter = base, adapter
        with safe_open(adapter / lora.WEIGHTS, "pt") as file:
            names = set(file.keys())
        self._pairs: Mapping[str, tuple[str, str]] = {
            self._target(name): (name, name.replace(".lora_A.", ".lora_B."))
            for name in names
            if ".lora_A." in name and name.replace(".lora_A.", ".lora_B.") in names
        }
        known = {each for pair in self._pairs.values() for each in pair}
        strange = sorted(names - known) + [name for name in self._pairs if base.stored_name(name) is None]
        if strange:
            raise ValueError(f"the adapter has {strange[0]}, which the base model lacks")

    def _target(self, name: str) -> str:
        return name.removeprefix("base_model.model.").split(".lora_A.")[0] + ".weight"

    def stored_name(self, name: str) -> str | None:
        """The name of a parameter in the files of the base model; None if it is missing."""
        return self._base.stored_name(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._base.shape(name)

    def rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """The entries from `begin` to `end` of the first dimension, as float32, the adapter added."""
        rows = self._base.rows(name, begin, end)
        if name not in self._pairs:
            return rows
        with safe_open(self._adapter / lora.WEIGHTS, "pt") as file:
            a, b = (file.get_tensor(each).float() for each in self._pairs[name])
        return rows.addmm_(b[begin:end], a, alpha=lora.scale(self._adapter, a.shape[0]))


def tensor(tensors: Tensors, name: str) -> torch.Tensor:
    """A whole tensor as float32."""
    return tensors.rows(name, 0, tensors.shape(name)[0])


def _stored(tensors: Tensors, name: str) -> str:
    """`stored_name`, but raises `KeyError` if the tensor is missing."""
    if (stored := tensors.stored_name(name)) is None:
        raise KeyError(name)
    return stored
