"""Linear layers of one byte a weight for CPUs: a third of the memory, and twice the speed where memory is what limits.

Weights are rounded to 255 steps for each output (symmetric), activations for each token as they come, and the products
are whole numbers: what one token gives does not depend on those beside it, so that guessing ahead changes nothing.
The scheme is that of LLM.int8() without its outlier columns (https://arxiv.org/abs/2208.07339).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

MIN_SIZE = 64  # features; what is narrower, such as a router, stays as it is: it is small, and decides much
QMAX = 127


class Int8Linear(nn.Module):
    """In place of an `nn.Linear`: same input, same output but for rounding. Cannot be trained."""

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
        """The weights as 32-bit floats, made anew: for the few models that compute with them by themselves."""
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
    """In place of an `nn.Embedding`: kept in the type that it was stored in, given out as 32-bit floats."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight, self.padding_idx = embedding.weight, embedding.padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """`ids`: any shape, int64; returns one more dimension."""
        return nn.functional.embedding(ids, self.weight, self.padding_idx).float()


def quantise(model: PreTrainedModel) -> None:
    """Changes a model in place, layer by layer, so that it never needs much more memory than it has.

    What is no linear layer or embedding becomes 32-bit floats, which CPUs compute fastest in.
    """
    made: list[nn.Module] = []
    for parent, name, layer in list(_layers(model)):
        if isinstance(layer, nn.Embedding):
            made.append(StoredEmbedding(layer))
        elif min(layer.in_features, layer.out_features) >= MIN_SIZE:
            made.append(Int8Linear(layer))
        else:
            continue
        setattr(parent, name, made[-1])
    kept = {id(tensor) for layer in made for tensor in (*layer.parameters(), *layer.buffers())}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and id(tensor) not in kept:
            tensor.data = tensor.data.float()


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear | nn.Embedding]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            # Not of subclasses, which may compute otherwise.
            if isinstance(child, nn.Linear | nn.Embedding) and type(child) in (nn.Linear, nn.Embedding):
                yield parent, name, child
