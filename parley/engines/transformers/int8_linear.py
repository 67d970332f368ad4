"""Linear layers with int8 weights for CPUs: a third of the memory, and twice the speed where memory is the bottleneck.

Weights are quantized symmetrically with one scale per output feature, activations with one scale per token, at run
time. The products are integers, so the result for a token does not depend on other tokens in the pass, and speculative
decoding gives the same text. The scheme is LLM.int8() without its outlier columns (https://arxiv.org/abs/2208.07339).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

MIN_FEATURES = 64  # a smaller layer, such as a router, is not quantized: it saves little, and its precision matters
QMAX = 127


class Int8Linear(nn.Module):
    """Replaces an `nn.Linear`: same input, same output except for rounding. Cannot be trained."""

    quantized: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        floats = linear.weight.detach().float()
        scale = (floats.abs().amax(1) / QMAX).clamp(min=1e-8)
        quantized = (floats / scale[:, None]).round_().to(torch.int8)
        self.register_buffer("quantized", quantized)  # (out, in)
        self.register_buffer("scale", scale)  # (out)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().float(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weights as float32, dequantized at each call, for the few models that use the weights directly."""
        return self.quantized * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """`x`: (…, in), floats; returns (…, out) of the same type."""
        rows = x.reshape(-1, self.in_features)
        absmax = rows.abs().amax(1, keepdim=True).clamp_(min=1e-8)
        quantized = rows.mul(QMAX / absmax).round_().to(torch.int8)
        y = torch._int_mm(quantized, self.quantized.t()).to(x.dtype).mul_(self.scale).mul_(absmax.div_(QMAX))
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], self.out_features)


class StoredEmbedding(nn.Module):
    """Replaces an `nn.Embedding`: keeps the weights in their stored type, and returns float32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight, self.padding_idx = embedding.weight, embedding.padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """`ids`: any shape, int64; returns one more dimension."""
        return nn.functional.embedding(ids, self.weight, self.padding_idx).float()


def quantise(model: PreTrainedModel) -> None:
    """Quantizes a model in place, layer by layer, which needs little extra memory.

    Parameters outside of linear layers and embeddings become float32, the fastest type on CPUs.
    """
    replaced: list[nn.Module] = []
    for parent, name, layer in list(_layers(model)):
        if isinstance(layer, nn.Embedding):
            replaced.append(StoredEmbedding(layer))
        elif min(layer.in_features, layer.out_features) >= MIN_FEATURES:
            replaced.append(Int8Linear(layer))
        else:
            continue
        setattr(parent, name, replaced[-1])
    kept = {id(tensor) for layer in replaced for tensor in (*layer.parameters(), *layer.buffers())}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and id(tensor) not in kept:
            tensor.data = tensor.data.float()


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear | nn.Embedding]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            # Subclasses are excluded, because their `forward` may differ.
            if isinstance(child, nn.Linear | nn.Embedding) and type(child) in (nn.Linear, nn.Embedding):
                yield parent, name, child
