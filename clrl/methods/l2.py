"""Distance from old weights, all alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clrl.methods.penalty import Penalty
from clrl.types import Batch

__all__ = ["L2"]


@dataclass
class L2(Penalty):
    """Pull all weights alike towards where they were: the baseline of Kirkpatrick et al. (2017).

    `L(theta) + strength / 2 * sum_k ||theta - theta*_k||^2`: EWC with a Fisher information of 1.
    Draws no data, so that `n_samples` and `n_batches` mean nothing; normalised or not is the same.
    Differs from the paper in nothing but the choice of what is protected (`protect_head`, `value`).
    """

    factor: ClassVar[float] = 0.5

    @property
    def starts_plainly(self) -> bool:
        return type(self) is L2

    def importance(self, data: Iterator[Batch]) -> dict[str, Tensor]:
        return {name: torch.ones_like(p) for name, p in self.protected.items()}
