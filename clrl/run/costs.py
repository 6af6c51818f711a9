"""What a visit to a task costs."""

from __future__ import annotations

import resource
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clrl.types import Net

__all__ = ["multiply_adds", "peak_memory", "sizes"]


ROWS = 64  # small batches may take another way, with more work in fewer operations


@torch.no_grad()
def multiply_adds(net: Net, x: Tensor, route: Tensor) -> int:
    """Return the multiply-adds that an answer to one input (1, ...) takes, frozen parts included.

    Convolutions and matrix products are counted (PathNet sums its modules by one), biases are not;
    as they are for a larger batch: small ones go through a progressive net's frozen columns at once
    with zeros for what is not connected.
    """
    with FlopCounterMode(display=False) as counter:
        net(x.expand(ROWS, *x.shape[1:]), route.expand(ROWS))
    return int(counter.get_total_flops()) // (2 * ROWS)


def sizes(net: Net) -> dict[str, float]:
    """Return numbers of parameters: of all, and of those that are not frozen.

    Heads of other tasks count as trained where the method leaves them open, though no gradient
    reaches them.
    """
    parameters = list(net.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
    }


def peak_memory(before: Mapping[str, float]) -> dict[str, float]:
    """Return the largest memory so far in MB: of the process and, on CUDA, of torch's tensors.

    Args:
        before: the same of the run's earlier processes; {} if there were none.
    """
    peak = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if on_cuda := torch.cuda.max_memory_allocated():  # 0 where CUDA is not in use
        peak["peak_cuda_memory_mb"] = on_cuda / 2**20
    return dict(before) | {k: max(round(v, 1), before.get(k, 0.0)) for k, v in peak.items()}
