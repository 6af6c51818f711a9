"""Soft parameter pruning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clrl.methods.fisher import exact_fisher
from clrl.methods.penalty import Penalty
from clrl.types import Batch

__all__ = ["SPP"]


@dataclass
class SPP(Penalty):
    """Pull weights whose removal would change how sure the net is (Peng et al. 2018).

    `L(theta) + strength * sum_i Omega_i (theta_i - theta*_i)^2`, where theta* are the latest
    weights and Omega the sum over the finished visits of the mean over batches of
    `max(0, theta_i dS/dtheta_i + 1/2 theta_i^2 C_i)`. S is the entropy `-sum_y p log p` summed over
    a batch, C its curvature. No labels are needed.

    The paper's equation and its official code agree on the sign above (`sign: paper`). But setting
    theta_i to 0 changes S by `-theta_i dS/dtheta_i + 1/2 theta_i^2 C_i`: the published sign favours
    weights whose removal makes the net *more* sure, against the stated intent, which is
    `sign: entropy_increase`. For C the paper has "the diagonal Fisher information"; the code takes
    the square of the batch's entropy gradient (`curvature: entropy_batch`), in which samples cancel
    as they do in a batched Fisher; `loglik_exact` is the Fisher information of the outputs, exact
    and summed over the batch. Neither is a second derivative of S.

    Differs from the official code:
    - its batches of 100 lose their last sample to an off-by-one; these do not. Samples that do not
      fill the last batch are left out, because the scale of Omega depends on a batch's size;
    - with `normalise` Omega is divided by its mean over the protected weights (published: not;
      strengths there, 0.5 to 12, belong to that scale);
    - a head that tasks share is protected unless `protect_head` is false; there, never;
    - `value` adds the square of the gradient of the batch's summed value to C (with `loglik_exact`,
      the sum of squares).
    """

    anchors: Literal["separate", "online"] = "online"
    """Pull to the weights after each visit, or with all importance to the latest (published)."""
    n_samples: int = 500
    """States or images the importance is averaged over."""
    sign: Literal["paper", "entropy_increase"] = "paper"
    """Of the first-order term: as published, or of the increase of entropy by pruning."""
    curvature: Literal["entropy_batch", "loglik_exact"] = "entropy_batch"
    """(dS/dtheta)^2 as in the official code, or the exact Fisher information."""
    batch_size: int = 100
    """Samples whose entropies are summed before anything is squared or cut off at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.batch_size <= self.n_samples:
            raise ValueError(
                f"batch_size is {self.batch_size}: expected from 1 to n_samples ({self.n_samples})"
            )

    @property
    def starts_plainly(self) -> bool:
        return type(self) is SPP

    def importance(self, data: Iterator[Batch]) -> dict[str, Tensor]:
        sample = self.draw(data)
        theta = {name: p for name, p in self.protected.items() if p.requires_grad}
        total = {name: torch.zeros_like(p) for name, p in self.protected.items()}
        n_batches = len(sample) // self.batch_size
        for k in range(n_batches):
            batch = sample[k * self.batch_size : (k + 1) * self.batch_size]
            slope, curvature = self._terms(batch, theta)
            for name, p in theta.items():
                w = p.detach()
                first = w * slope[name] if self.sign == "paper" else -w * slope[name]
                second = 0.5 * w.square() * curvature[name]
                total[name] += (first + second).clamp_(min=0) / n_batches
        return total

    def _terms(
        self, batch: Batch, theta: dict[str, nn.Parameter]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return dS/dtheta and C of a batch, by name."""

        def gradient(y: Tensor) -> dict[str, Tensor]:
            g = torch.autograd.grad(
                y, list(theta.values()), retain_graph=True, materialize_grads=True
            )
            return dict(zip(theta, g, strict=True))

        with torch.enable_grad():
            logits, value = self.net(batch.x, batch.route)
            log_p = logits.log_softmax(-1)
            slope = gradient(-(log_p.exp() * log_p).sum())
            if self.curvature == "loglik_exact":
                mean = exact_fisher(self.net, batch.x, batch.route, self.value)
                return slope, {name: len(batch) * f for name, f in mean.items()}
            curvature = {name: g.square() for name, g in slope.items()}
            if self.value and value is not None:
                for name, g in gradient(value.sum()).items():
                    curvature[name] += g.square()
            return slope, curvature
