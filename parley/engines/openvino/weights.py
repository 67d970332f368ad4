"""Reads weights as constants of a graph, int8 or float32, in slices to save memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import openvino
import openvino.opset15 as ops
import torch

from parley.engines.load_errors import NotFinite
from parley.engines.tensors import SLICE_ROWS, SafetensorsFolder, Tensors, tensor

Precision = Literal["int8", "float32"]
Fill = Callable[[int, torch.Tensor], None]  # takes the first row of a slice, and the slice as floats
QMAX = 127
MIN_SCALE = 1e-7  # the smallest positive float16 is 6e-8


class Weights:
    """Tensors as constants of a graph, by the parameter names of transformers.

    `source` is a folder of safetensors files, or any `Tensors`. Raises what they raise.
    """

    def __init__(self, source: Path | Tensors) -> None:
        self._tensors = SafetensorsFolder(source) if isinstance(source, Path) else source

    def stored_name(self, name: str) -> str | None:
        """The name of a parameter in the files; None if it is missing."""
        return self._tensors.stored_name(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises `KeyError` if it is missing."""
        return self._tensors.shape(name)

    def differ(self, name: str, other: str) -> bool:
        """Whether the files hold both tensors, with different values."""
        if self.stored_name(name) is None or self.stored_name(other) is None:
            return False
        if self.shape(name) != self.shape(other):
            return True
        read = self._tensors.rows
        starts = range(0, self.shape(name)[0], SLICE_ROWS)
        return any(not torch.equal(read(name, i, i + SLICE_ROWS), read(other, i, i + SLICE_ROWS)) for i in starts)

    def vector(self, name: str) -> np.ndarray:
        """A one-dimensional tensor as float32."""
        return _finite(name, tensor(self._tensors, name)).numpy()

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
            rows = self.shape(name)[0]
            for begin in range(0, rows, SLICE_ROWS):
                floats = _finite(name, self._tensors.rows(name, begin, min(begin + SLICE_ROWS, rows)))
                fill(row, floats)
                row += len(floats)


def constant_floats(matrix: np.ndarray) -> openvino.Node:
    """A float32 matrix as a constant that shares its memory."""
    return ops.constant(matrix, shared_memory=True)


def constant_int8(quantized: np.ndarray, scales: np.ndarray) -> openvino.Node:
    """The float32 node for an int8 matrix, shape (rows, width), with float16 scales of its rows, shape (rows, 1)."""
    integers = ops.convert(ops.constant(quantized, shared_memory=True), "f16")
    return ops.convert(ops.multiply(integers, ops.constant(scales, shared_memory=True)), "f32")


def _finite(name: str, floats: torch.Tensor) -> torch.Tensor:
    if not bool(floats.isfinite().all()):
        raise NotFinite(name)
    return floats
