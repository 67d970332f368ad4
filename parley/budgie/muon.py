"""Muon: momentum whose update is orthogonalised, for the matrices inside a transformer (Keller Jordan, 2024)."""

from collections.abc import Iterable

import torch

MOMENTUM, DECAY, STEPS = 0.95, 0.02, 5


def orthogonalise(update: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz: (n, rows, columns), each matrix brought near to the closest one with singular values of 1."""
    tall = update.shape[1] > update.shape[2]
    x = (update.transpose(1, 2) if tall else update).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        square = x @ x.transpose(1, 2)
        x = 3.4445 * x + (2.0315 * (square @ square) - 4.7750 * square) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Matrices of one shape are stepped together. Embeddings and norms belong to another optimizer."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        """Moves every matrix against its gradient, which must be there."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                gradient = torch.stack([parameter.grad for parameter in parameters])
                state = self.state[parameters[0]]
                momentum = state.setdefault("momentum", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - MOMENTUM)
                updates = orthogonalise(gradient.lerp(momentum, MOMENTUM))
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * DECAY).add_(update, alpha=-rate)
