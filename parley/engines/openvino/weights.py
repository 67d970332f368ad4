"""The weights of a folder as constants of a graph, int8 or float32, read in slices: no copy in floats is whole."""

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
Fill = Callable[[int, torch.Tensor], None]  # takes the row at which a slice begins, and the slice as floats
SLICE_ROWS = 4096  # of a matrix that are floats at once
QMAX = 127
MIN_SCALE = 1e-7  # the smallest that a 16-bit float can hold is 6e-8


class NotFinite(ValueError):
    """A tensor holds NaN or infinity."""


class Weights:
    """The tensors of a folder of safetensors files, by the names that transformers gives to a model's parameters.

    Files are opened for one tensor at a time: what is mapped counts as memory of the process for as long as it is.
    Raises `SafetensorError`, `OSError`, `KeyError` or `ValueError` for a missing or damaged file.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        paths = [folder / SAFE_WEIGHTS_NAME]
        if not paths[0].is_file():  # in this order transformers looks for them; others in the folder are not the model
            index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text("utf-8"))
            paths = [folder / name for name in sorted(set(index["weight_map"].values()))]
        for path in paths:
            with safe_open(path, "pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def stored_name(self, name: str) -> str | None:
        """What a parameter is called in the files; None where it is missing.

        Files that were saved from the bare decoder have no "model." before its names.
        """
        return next((each for each in (name, name.removeprefix("model.")) if each in self._files), None)

    def _stored(self, name: str) -> str:
        """`stored_name` of a tensor that is there; raises `KeyError`."""
        if (stored := self.stored_name(name)) is None:
            raise KeyError(name)
        return stored

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that is there."""
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
            left, right = one.get_slice(first), two.get_slice(second)
            starts = range(0, left.get_shape()[0], SLICE_ROWS)
            return any(not torch.equal(left[i : i + SLICE_ROWS], right[i : i + SLICE_ROWS]) for i in starts)

    def vector(self, name: str) -> np.ndarray:
        """A whole tensor of one dimension as float32."""
        stored = self._stored(name)
        with safe_open(self._files[stored], "pt") as file:
            return _finite(name, file.get_tensor(stored).float()).numpy().copy()

    def matrix(self, names: Sequence[str], precision: Precision) -> openvino.Node:
        """Matrices of one width, one under the other, as one constant of shape (rows, width)."""
        shapes = [self.shape(name) for name in names]
        rows, width = sum(shape[0] for shape in shapes), shapes[0][1]
        if precision == "float32":
            whole = np.empty((rows, width), np.float32)

            def copy(at: int, floats: torch.Tensor) -> None:
                whole[at : at + len(floats)] = floats.numpy()

            self._fill(names, copy)
            return constant_floats(whole)
        quantized, scales = np.empty((rows, width), np.int8), np.empty((rows, 1), np.float16)

        def fill(at: int, floats: torch.Tensor) -> None:
            scale = (floats.abs().amax(1, keepdim=True) / QMAX).clamp_min(MIN_SCALE).half()
            scales[at : at + len(floats)] = scale.numpy()
            steps = floats.div_(scale.float()).round_().clamp_(-QMAX, QMAX)
            quantized[at : at + len(floats)] = steps.to(torch.int8).numpy()

        self._fill(names, fill)
        return constant_int8(quantized, scales)

    def _fill(self, names: Sequence[str], fill: Fill) -> None:
        at = 0
        for name in names:
            stored = self._stored(name)
            with safe_open(self._files[stored], "pt") as file:
                tensor = file.get_slice(stored)
                for begin in range(0, tensor.get_shape()[0], SLICE_ROWS):
                    floats = _finite(name, tensor[begin : begin + SLICE_ROWS].to(torch.float32, copy=True))
                    fill(at, floats)
                    at += len(floats)


def constant_floats(matrix: np.ndarray) -> openvino.Node:
    """A float32 matrix as a constant that shares its memory."""
    return ops.constant(matrix, shared_memory=True)


def constant_int8(quantized: np.ndarray, scales: np.ndarray) -> openvino.Node:
    """An int8 matrix, shape (rows, width), with a float16 scale for each row, shape (rows, 1), as float32."""
    steps = ops.convert(ops.constant(quantized, shared_memory=True), "f16")
    return ops.convert(ops.multiply(steps, ops.constant(scales, shared_memory=True)), "f32")


def _finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not bool(tensor.isfinite().all()):
        raise NotFinite(name)
    return tensor
