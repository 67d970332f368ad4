"""Linear layers of half a byte a weight for CPUs: faster than those of one byte for a token, slower for a long prompt.

Of each output, 32 weights beside each other are rounded to 16 steps between their least and their greatest, as in
Q4_1 of llama.cpp; activations are bfloat16. What one token gives does not depend on those beside it.
"""

import torch
from torch import Tensor, nn

from parley.engines.int8 import Int8Linear

GROUP = 32  # weights that share their steps
STEPS = 15
MIDDLE = 8  # torch counts the steps from here


class Int4Linear(nn.Module):
    """In place of an `nn.Linear`: nearly the same output for the same input. Cannot be trained."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        groups = linear.weight.detach().float().view(self.out_features, -1, GROUP)
        low, high = groups.aminmax(dim=-1, keepdim=True)
        # The steps are rounded first, for the weights are to be next to what will be computed with.
        scale = ((high - low) / STEPS).clamp(min=1e-8).bfloat16().float()
        middle = (low + MIDDLE * scale).bfloat16().float()
        whole = ((groups - middle) / scale + MIDDLE).round_().clamp_(0, STEPS).to(torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole.view(self.out_features, -1), 1)
        self.register_buffer("packed", packed)  # (out, in / 2), in an order that the processor likes
        steps = torch.cat([scale, middle], dim=-1).transpose(0, 1).contiguous()
        self.register_buffer("steps", steps.bfloat16())  # (in / GROUP, out, 2)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().float(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weights as 32-bit floats, made anew: for the few models that compute with them by themselves."""
        return self(torch.eye(self.in_features)).t() - (0 if self.bias is None else self.bias[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """`x`: (…, in), floats; returns (…, out) of the same type."""
        rows = x.reshape(-1, self.in_features).bfloat16()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.steps).to(x.dtype)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], self.out_features)


def narrow(linear: nn.Linear) -> nn.Module:
    """A layer of half a byte a weight, where the shape allows it, else of one byte."""
    fits = linear.in_features % GROUP == 0 and linear.out_features % 16 == 0
    return Int4Linear(linear) if fits else Int8Linear(linear)
