"""What a visit to a task costs."""

from __future__ import annotations

import resource

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clrl.types import Net

__all__ = ["multiply_adds", "sizes"]


@torch.no_grad()
def multiply_adds(net: Net, x: Tensor, route: Tensor) -> int:
    """Return the multiply-adds that an answer to one input (1, ...) takes, frozen parts included.

    Convolutions and matrix products are counted (PathNet sums its modules by one), biases are not.
    """
    with FlopCounterMode(display=False) as counter:
        net(x, route)
    return int(counter.get_total_flops()) // 2


def sizes(net: Net) -> dict[str, float]:
    """Return numbers of parameters, and the process's peak memory so far in MB."""
    parameters = list(net.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
