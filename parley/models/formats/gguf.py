"""Reads the header of a GGUF file: its metadata, and where its tensors are.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. `gguf.GGUFReader` makes an object of every
token, which takes seconds; here the arrays of strings are passed over.
"""

import functools
import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parley.errors import ModelUnavailable

MAGIC, VERSIONS = b"GGUF", (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4
STORED_BYTES = 2  # of a number after the conversion, as in a folder in bfloat16
_PART = re.compile(r"-\d{5}-of-\d{5}$")

# The architectures whose tensors are read: the names of transformers, and how llama.cpp changed the numbers.
# See convert_hf_to_gguf.py, https://github.com/ggml-org/llama.cpp. "permuted": the rows of queries and keys of each
# head are in the order of neighbouring pairs. "norm plus one": the norms are stored as 1 + weight.
ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "llama": ("llama", "permuted"),
    "qwen2": ("qwen2", ""),
    "qwen3": ("qwen3", ""),
    "phi3": ("phi3", ""),
    "starcoder2": ("starcoder2", ""),
    "gemma3": ("gemma3_text", "norm plus one"),
    "nemotron": ("nemotron", "norm plus one"),
}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file: its shape as in torch, its type as ggml numbers it, and its first byte in the file."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class Header:
    """The metadata without arrays of strings, which are their lengths instead, and the tensors by their names."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """Such as "llama"; empty where the file does not say it."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def converted_bytes(self) -> int:
        """The size of the weights after the conversion to numbers of two bytes."""
        return STORED_BYTES * sum(math.prod(each.shape) for each in self.tensors.values())

    def config(self) -> dict[str, Any]:
        """The fields of a config.json that the estimates need."""

        def stated(key: str) -> Any:
            return self.metadata.get(f"{self.architecture}.{key}")

        fields = {
            "model_type": ARCHITECTURES.get(self.architecture, (self.architecture, ""))[0],
            "dtype": "bfloat16",
            "hidden_size": stated("embedding_length"),
            "intermediate_size": stated("feed_forward_length"),
            "num_hidden_layers": stated("block_count"),
            "num_attention_heads": stated("attention.head_count"),
            "num_key_value_heads": stated("attention.head_count_kv"),
            "head_dim": stated("attention.key_length"),
            "max_position_embeddings": stated("context_length"),
            "vocab_size": self.metadata.get("tokenizer.ggml.tokens"),
            "tie_word_embeddings": "output.weight" not in self.tensors,
        }
        return {name: value for name, value in fields.items() if value is not None}


class _Reader:
    """Takes values from the front of the file. Raises `struct.error` or `ValueError` past its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.place = data, 0

    def number(self, form: str) -> Any:
        [value] = struct.unpack_from(form, self.data, self.place)
        self.place += struct.calcsize(form)
        return value

    def text(self) -> str:
        length = self.number("<Q")
        begin, self.place = self.place, self.place + length
        if self.place > len(self.data):
            raise ValueError("a string goes past the end")
        return self.data[begin : self.place].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise ValueError(f"unknown type {kind}")
        inner, length = self.number("<I"), self.number("<Q")
        if inner != STRING:
            return [self.value(inner) for _ in range(length)] if length < 1000 else self._skip(inner, length)
        for _ in range(length):
            self.place += 8 + struct.unpack_from("<Q", self.data, self.place)[0]
        return length

    def _skip(self, inner: int, length: int) -> int:
        self.place += struct.calcsize(SCALARS[inner]) * length
        return length


def header(path: Path) -> Header:
    """The header of the file. Raises `ModelUnavailable` for a damaged file, and `OSError`."""
    state = path.stat()
    return _header(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=16)
def _header(path: Path, _: int, size: int) -> Header:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _read(_Reader(data))
    except (ValueError, KeyError, struct.error, OverflowError) as error:
        raise ModelUnavailable(f"{path.name} is no GGUF file of version 2 or 3, or it is damaged.") from error
    if any(each.offset >= size for each in found.tensors.values()):
        raise ModelUnavailable(f"{path.name} is not whole: tensors are missing at its end. Download it again.")
    return found


def _read(reader: _Reader) -> Header:
    if reader.data[:4] != MAGIC:
        raise ValueError("no magic")
    reader.place = 4
    if reader.number("<I") not in VERSIONS:
        raise ValueError("another version")
    num_tensors, num_values = reader.number("<Q"), reader.number("<Q")
    metadata = {reader.text(): reader.value(reader.number("<I")) for _ in range(num_values)}
    infos = []
    for _ in range(num_tensors):
        name, dimensions = reader.text(), reader.number("<I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError("too many dimensions")
        shape = tuple(reader.number("<Q") for _ in range(dimensions))[::-1]
        infos.append((name, TensorInfo(shape, reader.number("<I"), reader.number("<Q"))))
    step = metadata.get("general.alignment", 32)
    start = -(-reader.place // step) * step
    return Header(metadata, {name: TensorInfo(i.shape, i.type, start + i.offset) for name, i in infos})


def obstacle(path: Path) -> str:
    """Why the file cannot be used as a model, as a sentence that names its kind; empty where it can."""
    if _PART.search(path.stem):
        return f"{path.name} is one part of a GGUF model in several files. Merge them with llama-gguf-split --merge."
    try:
        found = header(path)
    except ModelUnavailable as error:
        return str(error)
    except OSError:
        return f"{path.name} cannot be read any more. Put the file back, or choose another model."
    kind = found.metadata.get("general.type", "model")
    if kind != "model":
        return f"{path.name} is a GGUF file of the kind {str(kind)[:40]!r}, not of a whole model. Choose another file."
    if found.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return (
            f"{path.name} is a GGUF file of the architecture {found.architecture[:40]!r}, which is not read here. "
            f"Choose one of {known}, or the model's folder of safetensors files."
        )
    return ""
