"""Reads the weights of a folder as constants of a graph, int8 or float32, in slices to save memory."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import openvino
import openvino.opset15 as ops
import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

Precision = Literal["int8", "float32"]
Fill = Callable[[int, torch.Tensor], None]  # takes the first row of a slice, and the slice as floats
SLICE_ROWS = 4096  # rows of a matrix that are converted to floats at a time
QMAX = 127
MIN_SCALE = 1e-7  # the smallest positive float16 is 6e-8


class NotFinite(ValueError):
    """A tensor holds NaN or infinity."""


class Weights:
    """The tensors of a folder of safetensors files, by the parameter names of transformers.

    A file is opened for one tensor at a time, because a mapped file counts as memory of the process.
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
        return next((each for each in (name, name.removeprefix("model.")) if each in self._files), None)

    def _stored(self, name: str) -> str:
        """`stored_name`, but raises `KeyError` if the tensor is missing."""
        if (stored := self.stored_name(name)) is None:
            raise KeyError(name)
        return stored

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises `KeyError` if it is missing."""
        stored = self._stored(name)
        with safe_open(self._files[stored], "pt") as file:
            return tuple(file.get_slice(stored).get_shape())

    def differ(self, name: str, other: str) -> bool:
        """Whether the files hold both tensors, with different values."""
        first, second = self.stored_name(name), self.stored_name(other)
        if first is None or second is None:
            return False
        if self.shape(name) != self.shape(other):
            return True
        with safe_open(self._files[first], "pt") as one, safe_open(self._files[second], "pt") as two:
            a, b = one.get_slice(first), two.get_slice(second)
            starts = range(0, a.get_shape()[0], SLICE_ROWS)
            return any(not torch.equal(a[i : i + SLICE_ROWS], b[i : i + SLICE_ROWS]) for i in starts)

    def vector(self, name: str) -> np.ndarray:
        """A one-dimensional tensor as float32."""
        stored = self._stored(name)
        with safe_open(self._files[stored], "pt") as file:
            return _finite(name, file.get_tensor(stored).float()).numpy().copy()

    def matrix(self, names: Sequence[str], precision: Precision) -> openvino.Node:
        """Matrices of the same width, concatenated by rows, as one constant of shape (rows, width)."""
        shapes = [self.shape(name) for name in names]
        rows, width = sum(shape[0] for shape in shapes), shapes[0][1]
        if precision == "float32":
            matrix = np.empty((rows, width), np.float32)

            def copy(row: int, floats: torch.Tensor) -> None:
                matrix[row : row + len(floats)] = floats.numpy()

            self._fill(names, copy)
            return constant_floats(matrix)
        quantized, scales = np.empty((rows, width), np.int8), np.empty((rows, 1), np.float16)

        def quantize(row: int, floats: torch.Tensor) -> None:
            scale = (floats.abs().amax(1, keepdim=True) / QMAX).clamp_min(MIN_SCALE).half()
            scales[row : row + len(floats)] = scale.numpy()
            rounded = floats.div_(scale.float()).round_().clamp_(-QMAX, QMAX)
            quantized[row : row + len(floats)] = rounded.to(torch.int8).numpy()

        self._fill(names, quantize)
        return constant_int8(quantized, scales)

    def _fill(self, names: Sequence[str], fill: Fill) -> None:
        row = 0
        for name in names:
            stored = self._stored(name)
            with safe_open(self._files[stored], "pt") as file:
                tensor = file.get_slice(stored)
                for begin in range(0, tensor.get_shape()[0], SLICE_ROWS):
                    floats = _finite(name, tensor[begin : begin + SLICE_ROWS].to(torch.float32, copy=True))
                    fill(row, floats)
                    row += len(floats)


def constant_floats(matrix: np.ndarray) -> openvino.Node:
    """A float32 matrix as a constant that shares its memory."""
    return ops.constant(matrix, shared_memory=True)


def constant_int8(quantized: np.ndarray, scales: np.ndarray) -> openvino.Node:
    """The float32 node for an int8 matrix, shape (rows, width), with float16 scales of its rows, shape (rows, 1)."""
    integers = ops.convert(ops.constant(quantized, shared_memory=True), "f16")
    return ops.convert(ops.multiply(integers, ops.constant(scales, shared_memory=True)), "f32")


def _finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not bool(tensor.isfinite().all()):
        raise NotFinite(name)
    return tensor
