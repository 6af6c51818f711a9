"""Memory aware synapses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from clrl.methods.fisher import mean_over_samples
from clrl.methods.penalty import Penalty
from clrl.types import MASKED, Batch, Output

__all__ = ["MAS"]


@dataclass
class MAS(Penalty):
    """Pull weights that the outputs are sensitive to (Aljundi et al. 2018).

    `L(theta) + strength * sum_i Omega_i (theta_i - theta*_i)^2`, where Omega is the sum over the
    finished visits of `1/N sum_n | d ||z(x_n)||_2^2 / d theta_i |` and theta* the latest weights.
    No labels are needed. The absolute value is of each sample's gradient by itself.

    Differs from the paper:
    - z are the logits, minus their mean: a softmax does not notice that, nor may its importance;
      outputs that a task does not have are left out. With `value`, z ends with the value;
    - with `normalise` Omega is divided by its mean over the protected weights.
    """

    anchors: Literal["separate", "online"] = "online"
    """Pull to the weights after each visit, or with all importance to the latest (published)."""

    @property
    def starts_plainly(self) -> bool:
        return type(self) is MAS

    def importance(self, data: Iterator[Batch]) -> dict[str, Tensor]:
        sample = self.draw(data)
        return mean_over_samples(
            self.net, sample.x, sample.route, self._directions, power=1, chunk=32
        )

    def _directions(self, output: Output, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return d ||z||^2 / d (logits, value) = 2 z: (1, B, width) and (1, B)."""
        z = output.logits
        exists = z > MASKED
        mean = z.where(exists, 0.0).sum(1, keepdim=True) / exists.sum(1, keepdim=True)
        at_value = 2 * output.value[None] if self.value and output.value is not None else None
        return 2 * (z - mean).where(exists, 0.0)[None], at_value
