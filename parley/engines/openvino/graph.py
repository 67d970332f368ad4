"""Builds the OpenVINO graph of a decoder directly from its weights, without tracing, conversion or files.

openvino.genai builds graphs from GGUF files in the same way (`gguf_utils/building_blocks.cpp`). Attention is
OpenVINO's paged operator, https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets.html.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset15 as ops
import torch
from openvino import Node, Type
from openvino.op import _PagedAttentionExtension as PagedAttention
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from parley.engines.openvino.weights import Precision, Weights
from parley.models.families import FAMILIES, activation, is_turned, layer_types, logits_scale, value

ACTIVATE: dict[str, Callable[[Any], Node]] = {
    "silu": ops.swish,
    "gelu": lambda x: ops.gelu(x, "erf"),
    "gelu_pytorch_tanh": lambda x: ops.gelu(x, "tanh"),
    "relu2": lambda x: ops.power(ops.relu(x), _floats(2.0)),
}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Progress = Callable[[int, int], None]  # takes the number of finished layers and of all layers; may raise to stop


class WeightsMismatch(ValueError):
    """The files do not hold the tensors that the model needs: `names` are missing or have another shape."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"{len(names)} tensors do not match, for example {names[0]}")
        self.names = names


class UnusedParameters(ValueError):
    """The model has parameters that the description of its family (in `FAMILIES`) does not use."""


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of transformers without weights, for the names and shapes of its parameters."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def write(
    config: PreTrainedConfig,
    weights: Weights,
    precision: Precision,
    *,
    layers: int | None = None,
    early: Sequence[int] = (),
    progress: Progress = lambda done, of: None,
) -> openvino.Model:
    """The graph of the first `layers` layers (of all by default), with the last norm and the head.

    Inputs, in addition to those of paged attention: `input_ids` and `position_ids`, shape (rows,), and `logit_rows`,
    shape (logit rows,). Results: the logits of the rows in `logit_rows`, shape (logit rows, vocabulary), and the
    hidden states of all rows after the last norm, shape (rows, width). `logit_rows` can also name hidden states of
    early layers: number (i + 1) * rows + r is row r before layer `early[i]`.

    Raises `WeightsMismatch` for missing tensors and for wrong shapes, `NotFinite` for NaN or infinite values, and
    `UnusedParameters` if the family's description does not use all parameters.
    """
    return _Builder(config, weights, precision, early).build(layers or config.num_hidden_layers, progress)


class _Builder:
    """Builds one graph. Hidden states have the shape (rows, 1, width), heads (rows, heads, 1, head size)."""

    def __init__(self, config: PreTrainedConfig, weights: Weights, precision: Precision, early: Sequence[int]) -> None:
        self._config, self._weights, self._precision, self._early = config, weights, precision, early
        self._family = FAMILIES[config.model_type]
        self._model = skeleton(config)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in self._model.named_parameters()}
        if HEAD not in self._shapes and weights.differ(HEAD, EMBEDDING):
            self._shapes[HEAD] = self._shapes[EMBEDDING]  # like transformers: different tensors are not tied
        self._unused = set(self._shapes)
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads or self._heads
        self._size = self._shapes[f"model.layers.0.self_attn.{self._family.attention[-1]}.weight"][1] // self._heads
        self._inputs: list[Any] = []
        self._rotations: dict[str, tuple[Node, Node, int]] = {}

    def build(self, layers: int, progress: Progress) -> openvino.Model:
        """See `write` of this module."""
        self._check_files()
        config, family = self._config, self._family
        ids, self._positions, logit_rows = (
            self._input(n, [-1], Type.i64) for n in ("input_ids", "position_ids", "logit_rows")
        )
        names = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins")
        self._paging = [self._input(name, [-1], Type.i32) for name in names]
        self._paging_length = self._input("max_context_len", [], Type.i32)

        table = self._matrix(["model.embed_tokens"])
        x = ops.unsqueeze(ops.gather(table, ids, _scalar(0)), _ints(1))
        x = self._scaled(x, value(config, "embedding_multiplier", 1.0))
        x = self._scaled(x, config.hidden_size**0.5 if family.scales_embedding else 1.0)
        early = {}
        for layer in range(layers):
            early[layer] = x
            x = self._layer(x, layer)
            progress(layer + 1, layers)
        hidden = self._norm(x, "model.norm")
        states = [hidden, *(early[layer] for layer in self._early)]
        chosen = ops.gather(ops.concat(states, 0) if len(states) > 1 else hidden, logit_rows, _scalar(0))
        head = table if HEAD not in self._shapes else self._matrix(["lm_head"])
        logits = self._scaled(ops.matmul(chosen, head, False, True), logits_scale(config))
        if layers == config.num_hidden_layers and self._unused:
            raise UnusedParameters(f"the family of the model does not use {sorted(self._unused)[0]}")
        flat = [ops.reshape(logits, _ints(-1, config.vocab_size), False)]
        flat.append(ops.reshape(hidden, _ints(-1, config.hidden_size), False))
        return openvino.Model([ops.result(each) for each in flat], self._inputs, "decoder")

    def _check_files(self) -> None:
        wrong = [
            name
            for name, shape in self._shapes.items()
            if self._weights.stored_name(name) is None or self._weights.shape(name) != shape
        ]
        if wrong:
            raise WeightsMismatch(wrong)

    def _layer(self, x: Node, layer: int) -> Node:
        at, (before, *between), after = f"model.layers.{layer}.", self._family.pre_norms, self._family.post_norms
        normed = self._norm(x, before and at + before)
        attended = self._add_residual(x, self._attention(normed, layer), at + after[0])
        if between:
            normed = self._norm(attended, between[0] and at + between[0])
        return self._add_residual(attended, self._mlp(normed, at + "mlp."), at + after[1])

    def _add_residual(self, x: Node, output: Node, norm: str) -> Node:
        output = self._norm(output, norm) if f"{norm}.weight" in self._shapes else output
        return ops.add(x, self._scaled(output, value(self._config, "residual_multiplier", 1.0)))

    def _mlp(self, x: Node, at: str) -> Node:
        *into, out = (at + name for name in self._family.mlp)
        wide, activate = self._linear(x, into), ACTIVATE[activation(self._config)]
        if not self._family.gated:
            return self._linear(activate(wide), [out])
        gate, up = _split(wide, [self._config.intermediate_size] * 2)
        return self._linear(ops.multiply(activate(gate), up), [out])

    def _attention(self, x: Node, layer: int) -> Node:
        config, family, size = self._config, self._family, self._size
        at, kind = f"model.layers.{layer}.self_attn.", layer_types(config)[layer]
        *into, out = (at + name for name in family.attention)
        q, k, v = _split(self._linear(x, into), [self._heads * size, self._kv_heads * size, self._kv_heads * size])
        if family.head_norm == "all":
            q, k = self._norm(q, at + "q_norm"), self._norm(k, at + "k_norm")
        q, k = self._by_head(q, self._heads), self._by_head(k, self._kv_heads)
        if family.head_norm == "each":
            q, k = self._norm(q, at + "q_norm"), self._norm(k, at + "k_norm")
        if is_turned(config, layer):
            q, k = self._rotated(q, kind), self._rotated(k, kind)
        attended = self._paged(_flat(q, self._heads * size), _flat(k, self._kv_heads * size), v, layer, kind)
        return self._linear(ops.reshape(attended, _ints(-1, 1, self._heads * size), False), [out])

    def _paged(self, q: Node, k: Node, v: Node, layer: int, kind: str) -> Any:
        """Attention over the blocks; see the operator's inputs in OpenVINO's paged_attention.hpp."""
        config, width = self._config, self._kv_heads * self._size
        caches = [self._input(f"{each}_cache.{layer}", [-1] * 4, Type.dynamic) for each in ("key", "value")]
        scale = value(config, "attention_multiplier") or (value(config, "query_pre_attn_scalar") or self._size) ** -0.5
        window = config.sliding_window if kind == "sliding_attention" else 0
        unused = [_none(t) for t in (np.int32, np.int32, np.int32, np.float32, np.float32)]
        inputs = [
            *(q, k, ops.reshape(v, _ints(-1, width), False), *caches, *self._paging),
            *(_scalar(scale, np.float32), _scalar(window), _none(np.float32), self._paging_length),
            *(*unused, _scalar(0), _scalar(0), ops.constant(np.zeros((0, 0, 0, 0), np.float32)), _scalar(0)),
            *(*(_none(np.int32) for _ in range(4)), _none(np.uint8), _none(np.int32)),
        ]
        attention = PagedAttention([node.output(0) if isinstance(node, Node) else node for node in inputs])
        info = attention.get_rt_info()
        for each in "kv":
            info[f"num_{each}_heads"], info[f"{each}_head_size"] = self._kv_heads, self._size
        return attention.output(0)

    def _rotated(self, heads: Node, kind: str) -> Node:
        cos, sin, rotary_dim = self._rotation(kind)
        size, half = self._size, rotary_dim // 2
        if self._family.pairs == "neighbours":
            # Reorder the dimensions. Attention is unchanged, because queries and keys get the same order.
            order = [*range(0, rotary_dim, 2), *range(1, rotary_dim, 2), *range(rotary_dim, size)]
            heads = ops.gather(heads, _ints(*order), _scalar(3))

        def dimensions(begin: int, end: int) -> Node:
            return ops.slice(heads, _ints(begin), _ints(end), _ints(1), _ints(3))

        x = heads if rotary_dim == size else dimensions(0, rotary_dim)
        rotated_half = ops.concat([ops.multiply(dimensions(half, rotary_dim), _floats(-1.0)), dimensions(0, half)], -1)
        rotated = ops.add(ops.multiply(x, cos), ops.multiply(rotated_half, sin))
        return rotated if rotary_dim == size else ops.concat([rotated, dimensions(rotary_dim, size)], -1)

    def _rotation(self, kind: str) -> tuple[Node, Node, int]:
        """Cosine and sine of every row, shape (rows, 1, 1, rotary_dim), and `rotary_dim`.

        `rotary_dim` is how many dimensions of a head are rotated.
        """
        if kind not in self._rotations:
            rotary = type(self._model.model.rotary_emb)(self._config)
            prefix = f"{kind}_" if hasattr(rotary, f"{kind}_inv_freq") else ""
            frequencies = getattr(rotary, f"{prefix}inv_freq").numpy()
            scale = getattr(rotary, f"{prefix}attention_scaling")
            positions = ops.unsqueeze(ops.unsqueeze(ops.convert(self._positions, "f32"), _ints(1)), _ints(2))
            angles = ops.multiply(positions, _floats(frequencies[None, None]))
            angles = ops.concat([angles, angles], -1)
            cos, sin = (
                ops.unsqueeze(self._scaled(function(angles), scale), _ints(1)) for function in (ops.cos, ops.sin)
            )
            self._rotations[kind] = cos, sin, 2 * len(frequencies)
        return self._rotations[kind]

    def _norm(self, x: Node, name: str) -> Node:
        if not name:
            return x
        epsilon, weight, bias = self._family.epsilon, f"{name}.weight", f"{name}.bias"
        epsilon = epsilon if isinstance(epsilon, float) else getattr(self._config, epsilon)
        if self._family.norm == "layer":
            x = ops.mvn(x, _ints(-1), True, epsilon, "inside_sqrt")
        else:
            mean = ops.reduce_mean(ops.power(x, _floats(2.0)), _ints(-1), True)
            x = ops.multiply(x, ops.divide(_floats(1.0), ops.sqrt(ops.add(mean, _floats(epsilon)))))
        if weight in self._shapes:
            x = ops.multiply(x, _floats(self._vector(weight) + (1 if self._family.norm_adds_one else 0)))
        return ops.add(x, _floats(self._vector(bias))) if bias in self._shapes else x

    def _linear(self, x: Node, names: Sequence[str]) -> Node:
        product = ops.matmul(x, self._matrix(names), False, True)
        if f"{names[0]}.bias" not in self._shapes:
            return product
        return ops.add(product, _floats(np.concatenate([self._vector(f"{name}.bias") for name in names])))

    def _matrix(self, names: Sequence[str]) -> Node:
        names = [f"{name}.weight" for name in names]
        self._unused.difference_update(names)
        return self._weights.matrix(names, self._precision)

    def _vector(self, name: str) -> np.ndarray:
        self._unused.discard(name)
        return self._weights.vector(name)

    def _input(self, name: str, shape: Sequence[int], kind: Type) -> Any:
        parameter = ops.parameter(openvino.PartialShape(list(shape)), kind, name)
        parameter.output(0).set_names({name})
        self._inputs.append(parameter)
        return parameter

    def _by_head(self, x: Node, heads: int) -> Node:
        return ops.transpose(ops.reshape(x, _ints(-1, 1, heads, self._size), False), _ints(0, 2, 1, 3))

    @staticmethod
    def _scaled(x: Node, factor: float) -> Node:
        return x if factor == 1.0 else ops.multiply(x, _floats(factor))


def _flat(heads: Node, width: int) -> Node:
    return ops.reshape(ops.transpose(heads, _ints(0, 2, 1, 3)), _ints(-1, width), False)


def _split(x: Node, widths: Sequence[int]) -> list[Any]:
    parts = ops.variadic_split(x, _scalar(2, np.int64), _ints(*widths))
    return [parts.output(i) for i in range(len(widths))]


def _floats(values: Any) -> Node:
    return ops.constant(np.ascontiguousarray(values, dtype=np.float32))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))


def _scalar(value: float, kind: Any = np.int32) -> Node:
    return ops.constant(np.array(value, kind))


def _none(kind: Any) -> Node:
    return ops.constant(np.zeros(0, kind))
