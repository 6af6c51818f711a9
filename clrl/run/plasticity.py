"""What becomes of a net's ability to learn: dormant units, effective rank, and norms a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from clrl.types import Net

__all__ = ["DORMANT", "dormant_share", "effective_rank", "plasticity"]

DORMANT = 0.025  # the threshold tau of Sokar et al. for Atari
N_INPUTS = 1_024  # inputs looked at, at most


def dormant_share(activations: Tensor) -> float:
    """Return the share of a layer's units that hardly react: tau-dormant ones.

    A unit's score is its mean absolute activation over the layer's mean of these; with a score up
    to `DORMANT` it is dormant (Sokar et al. 2023, definition 3.1). In a layer that is silent all
    units are. A map is one unit.

    Args:
        activations: (B, units) or (B, maps, height, width).

    >>> dormant_share(torch.tensor([[0.0, 0.01, 1.0, 3.0], [0.0, 0.03, -1.0, 3.0]]))
    0.5
    """
    of_units = activations.float().abs().transpose(0, 1).flatten(1).mean(1)
    return float((of_units <= DORMANT * of_units.mean()).float().mean())


def effective_rank(features: Tensor) -> float:
    """Return how many directions features (B, n) spread over: `exp(-sum p log p)`.

    p are the singular values over their sum (Roy & Vetterli 2007, definition 1). 0 if all are 0.

    >>> round(effective_rank(torch.diag(torch.tensor([2.0, 2.0, 2.0, 0.0]))), 4)
    3.0
    """
    values = torch.linalg.svdvals(features.float())
    total = values.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(values / total).sum().exp())


@torch.no_grad()
def plasticity(net: Net, x: Tensor, route: Tensor) -> dict[str, float]:
    """Return records of a net that has just learned from inputs (B, ...) with routes (B,).

    `plasticity/dormant/<layer>` and `plasticity/effective_rank` (of the last layer) come of these
    inputs and the weights after; `plasticity/weight_norm/<layer>` and `gradient_norm/<layer>` are
    2-norms of what is being trained, the gradient that of the last minibatch, after clipping.
    """
    if len(x) > N_INPUTS:  # drawn: a stride would keep time with environments or classes
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:N_INPUTS]
        x, route = x[some.to(x.device)], route[some.to(route.device)]
    features = net.features(x, route)
    records = {f"plasticity/dormant/{name}": dormant_share(h) for name, h in features.items()}
    if features:
        records["plasticity/effective_rank"] = effective_rank([*features.values()][-1].flatten(1))
    squares: dict[str, float] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            own = (layer for layer in features if name.startswith(f"{layer}."))
            layer = next(own, name.rpartition(".")[0])  # of a head, its module
            pairs = (("weight_norm", parameter), ("gradient_norm", parameter.grad))
            for kind, tensor in pairs:
                key = f"plasticity/{kind}/{layer}"
                square = 0.0 if tensor is None else float(tensor.float().square().sum())
                squares[key] = squares.get(key, 0.0) + square
    return records | {key: square**0.5 for key, square in squares.items()}
